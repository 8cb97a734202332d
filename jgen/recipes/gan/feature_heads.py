"""A discriminator on the features of frozen networks, as functions: Projected GAN's and StyleGAN-XL's.

Its players are "d", the heads, and two that are never trained: "features", a feature network up to its last map, and
"projection", the random weights that mix the maps. extra["d"] has the heads' batch statistics and singular vectors. With
several networks each of these is a dict of them by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config.projected import FeatureHeadsConfig
from jgen.errors import UserError
from jgen.models.gan.projected import MultiScale, Projection
from jgen.nn.precision import in_dtype
from jgen.objectives.diffaug import diffaug
from jgen.objectives.diffusion_gan import Process, diffuse_features
from jgen.objectives.gan import Adversarial, hinge, scaled
from jgen.recipes.gan.backbones import Backbone, Name, backbone
from jgen.types import Array, Condition, DiscriminatorOutput, Extra, Key, Params, PyTree

PLAYERS = ("d", "features", "projection")
HOLE = 0.2
"""Share of the side that the hole of the augmentation has."""
NOMINAL = (128, 64, 32, 16)
"""Nominal sides of mixed maps where images have 224 pixels; halved for each half of that that images have."""


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
    name: Name = "efficientnet_lite0"
    """The feature network."""
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
        own = self.backbone
        features = own.weights()
        keys, image = jax.random.split(key), jnp.zeros((1, size, size, 3))
        shapes: Any = jax.eval_shape(own.net.apply, {"params": features}, image)
        maps, tokens = [jnp.zeros(shape.shape) for shape in shapes.taps], {}
        if own.tokens is not None:
            tokens: Any = {"tokens": own.tokens.init(jax.random.fold_in(keys[0], 1), maps)["params"]}
            maps = self._maps(tokens, maps)
        mixing: Any = self.projection.init(keys[0], maps).get("params", {})
        label = jnp.zeros(1, jnp.int32) if self.classes else None
        made = self.heads.init(keys[1], self.projection.apply({"params": mixing}, maps), label, train=True)
        params = {"d": made["params"], "features": features, "projection": {**mixing, **tokens}}
        return params, {k: v for k, v in made.items() if k != "params"}

    @property
    def backbone(self) -> Backbone:
        """The feature network's functions."""
        return backbone(self.name, self.config.deit_file)

    def _maps(self, projection: PyTree, taps: Any) -> list[Array]:
        """The network's outputs as feature maps, finest first."""
        tokens = self.backbone.tokens
        return list(taps) if tokens is None else tokens.apply({"params": projection["tokens"]}, taps)  # pyright: ignore

    def normalized(self, images: Array) -> Array:
        """Images [B, H, W, 1 or 3] in [-1, 1], in colour and as the network takes them but for their size."""
        return self.backbone.normalized(jnp.repeat(images, 3, -1) if images.shape[-1] == 1 else images)

    def discriminate(
        self, params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        """Logits [B, L] of all heads, and extra["d"] after these images."""
        return self.discriminate_normalized(params, extra, self.normalized(images), condition, train)

    def discriminate_normalized(
        self, params: Params, extra: Extra, images: Array, condition: Condition, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        """`discriminate` for images as `normalized` gives them."""
        taps: Any = self.backbone.net.apply({"params": params["features"]}, resized(images, self.config.feature_size))
        maps, projection = self._maps(params["projection"], taps.taps), params["projection"]
        if self.process is not None and condition.noise_key is not None:
            maps = diffuse_features(self.process, maps, condition.noise_key, extra["diffusion"])
        mixing = {name: layer for name, layer in projection.items() if name != "tokens"}
        mixed = in_dtype(self.projection, self.dtype).apply({"params": mixing}, maps)
        heads: Any = in_dtype(self.heads, self.dtype)
        variables: Any = {"params": params["d"], **extra["d"]}
        label = condition.label if self.classes else None
        logits, state = heads.apply(variables, mixed, label, train=train, mutable=["batch_stats", "spectral"])
        return DiscriminatorOutput(logits), {"d": {**extra["d"], **state}}


@dataclass(frozen=True)
class SeveralHeads:
    """Heads on each of several networks (StyleGAN-XL).

    Where the condition has a noise_key, DiffAugment is drawn for each network apart, on images in its own normalisation, whose
    zeros are the mean of the network's colours.
    """

    each: tuple[FeatureHeads, ...]

    @property
    def config(self) -> FeatureHeadsConfig:
        """The settings that all have."""
        return self.each[0].config

    def init(self, key: Key, channels: int) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
        """({player: {network: params}}, {network: state}); see `FeatureHeads.init`."""
        made = {own.name: own.init(jax.random.fold_in(key, i), channels) for i, own in enumerate(self.each)}
        params = {player: {name: found[player] for name, (found, _) in made.items()} for player in PLAYERS}
        return params, {name: state for name, (_, state) in made.items()}

    def discriminate(
        self, params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        """A tuple of each network's logits [B, L], and extra["d"] after these images."""
        logits, states = [], {}
        for i, own in enumerate(self.each):
            mine: Mapping[str, PyTree] = {player: params[player][own.name] for player in PLAYERS}
            x = own.normalized(images)
            if condition.noise_key is not None:
                key = jax.random.fold_in(jax.random.wrap_key_data(condition.noise_key[0]), i)
                x = diffaug(key, x, hole=HOLE)
            output, state = own.discriminate_normalized(mine, {"d": extra["d"][own.name]}, x, condition, train)
            logits.append(output.logits)
            states[own.name] = state["d"]
        return DiscriminatorOutput(tuple(logits)), {"d": states}


def separately(config: FeatureHeadsConfig) -> bool:
    """Whether each network's images are augmented apart, as they are but for EfficientNet-Lite0 alone."""
    return config.backbones != ("efficientnet_lite0",)


def feature_heads(
    config: FeatureHeadsConfig, classes: int, process: Process | None = None, embedding: int = 0, dtype: str = "float32"
) -> FeatureHeads | SeveralHeads:
    """The discriminator of the settings. Raises UserError for networks that are none, named twice, or diffused together."""
    names = config.backbones
    if not names or len(set(names)) < len(names):
        raise UserError(f"backbones={' '.join(names)}: must be one or several, each once")
    each = tuple(FeatureHeads(config, classes, process, embedding, name, dtype) for name in names)
    if not separately(config):
        return each[0]
    if process is not None:
        raise UserError(f"backbones={' '.join(names)}: features of efficientnet_lite0 alone can be diffused")
    return SeveralHeads(each)


def hinge_of(config: FeatureHeadsConfig) -> Adversarial:
    """The hinge loss, summed over the networks (a loss over several heads is their mean)."""
    return scaled(hinge, len(config.backbones))
