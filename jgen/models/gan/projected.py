"""Projected GAN's discriminator (Sauer et al. 2021, arXiv:2111.01007): heads on mixed features of a frozen network.

Feature maps, finest first, are mixed across channels (CCM) and across scales (CSM) by random weights that are never trained,
and each goes to a discriminator of its own. StyleGAN-XL (arXiv:2202.00273) has fixed embeddings of its classes, which go
through a layer with an equalised learning rate.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.equalized import Dense, leaky_relu
from jgen.nn.norm import BatchNorm
from jgen.nn.resample import downsample
from jgen.nn.spectral_hook import UNIFORM, SpectralConv
from jgen.nn.warp import along, corners_aligned
from jgen.types import Array

WIDTHS = {4: 512, 8: 512, 16: 256, 32: 128, 64: 64, 128: 64, 256: 32, 512: 16, 1024: 8}
"""{nominal side: channels} of the heads."""
END = 8
"""Nominal side at which heads end."""
Mixing = Literal["none", "channels", "scales"]


class Projection(nn.Module):
    """Feature maps -> as many mixed ones. With "scales" each is twice as large as before, and the coarsest reach all others."""

    width: int = 64
    """Channels of the finest map."""
    expand: bool = True
    """Twice as many channels at each coarser scale."""
    mixing: Mixing = "scales"

    @nn.compact
    def __call__(self, features: Sequence[Array]) -> list[Array]:
        if self.mixing == "none":
            return list(features)
        count = len(features)

        def layer(width: int, name: str) -> nn.Dense:
            return nn.Dense(width, kernel_init=UNIFORM, bias_init=nn.initializers.normal(0.05), name=name)

        widths = [self.width * (2**i if self.expand else 1) for i in range(count)]
        mixed = [layer(w, f"layer{i}_ccm")(x) for i, (x, w) in enumerate(zip(features, widths))]
        if self.mixing == "channels":
            return mixed
        found, x = [], None
        for i in reversed(range(count)):
            x = mixed[i] if x is None else self._added(x, mixed[i])
            x = along(x, *(corners_aligned(side, 2 * side) for side in x.shape[1:3]))
            x = layer(x.shape[-1] // 2 if self.expand and i else x.shape[-1], f"layer{i}_csm")(x)
            found.insert(0, x)
        return found

    def _added(self, coarse: Array, fine: Array) -> Array:
        if coarse.shape != fine.shape:
            raise UserError(f"features: {coarse.shape[1:]} of a coarser scale and {fine.shape[1:]} do not add up; take images "
                            "whose side is a multiple of 32")  # fmt: skip
        return coarse + fine


class Down(nn.Module):
    """[B, H, W, I] -> [B, H/2, W/2, features], normalised by batch and bent."""

    features: int
    separable: bool = False
    patch: bool = False
    """A 1x1 convolution more, normalised and bent too."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        if self.separable:
            x = SpectralConv(x.shape[-1], padding=1, groups=x.shape[-1], name="depthwise")(x, train)
            x = SpectralConv(self.features, 1, name="pointwise")(x, train)
            x = downsample(leaky_relu(BatchNorm(name="norm")(x, train)))
        else:
            x = SpectralConv(self.features, 4, 2, 1, use_bias=True, name="conv")(x, train)
            x = leaky_relu(BatchNorm(name="norm")(x, train))
        if self.patch:
            x = SpectralConv(self.features, 1, name="patch_conv")(x, train)
            x = leaky_relu(BatchNorm(name="patch_norm")(x, train))
        return x


class Classes(nn.Module):
    """label int32 [B] -> [B, features]: what the classes' part of a head is multiplied by.

    fixed: embeddings are no parameter but a buffer, and the layer has an equalised learning rate (StyleGAN-XL).
    """

    features: int
    classes: int
    width: int = 128
    fixed: bool = False

    @nn.compact
    def __call__(self, label: Array) -> Array:
        shape, init = (self.classes, self.width), nn.initializers.normal(1.0)
        if self.fixed:
            table = self.variable("buffers", "embedding", lambda: init(self.make_rng("params"), shape)).value
            return Dense(self.features, "lrelu", name="embed_proj")(table[label])
        table = self.param("embedding", init, shape)
        return leaky_relu(nn.Dense(self.features, kernel_init=UNIFORM, name="embed_proj")(table[label]))


class Head(nn.Module):
    """A feature map -> its logits [B, h, w]; `start` is its nominal side, which says how often it is halved."""

    start: int
    width: int | None = None
    """Channels of every level; None: `WIDTHS`."""
    separable: bool = False
    patch: bool = False
    classes: int = 0
    class_width: int = 64
    """Channels whose product with the class's is summed to a logit."""
    embedding: int = 128
    """Numbers of a class's embedding."""
    fixed: bool = False

    @nn.compact
    def __call__(self, x: Array, label: Array | None, train: bool) -> Array:
        side = min(WIDTHS, key=lambda known: abs(known - self.start))
        i = 0
        while side > END:
            side //= 2
            width = self.width or WIDTHS[side]
            x = Down(width, self.separable, self.patch, name=f"down_{i}")(x, train)
            i += 1
        if min(x.shape[1:3]) < 4:
            raise UserError(f"features of {x.shape[1]}x{x.shape[2]} pixels at the end of a head: at least 4x4 are needed; "
                            "take a larger feature_size, or fewer heads")  # fmt: skip
        if not self.classes:
            return SpectralConv(1, 4, name="logits")(x, train)[..., 0]
        if label is None:
            raise UserError(f"label: the head has classes={self.classes} but no label came")
        found = SpectralConv(self.class_width, 4, name="logits")(x, train)
        y = Classes(self.class_width, self.classes, self.embedding, self.fixed, name="label")(label)
        return jnp.sum(found * y[:, None, None], -1) / self.class_width**0.5


class MultiScale(nn.Module):
    """Feature maps, finest first -> logits [B, L] of the heads, one after the other."""

    starts: tuple[int, ...] = (128, 64, 32, 16)
    """Nominal sides of the first heads' feature maps; 16 for all with `patch`."""
    width: int | None = None
    separable: bool = False
    patch: bool = False
    classes: int = 0
    class_width: int = 64
    embedding: int = 128
    fixed: bool = False

    @nn.compact
    def __call__(self, features: Sequence[Array], label: Array | None = None, *, train: bool = False) -> Array:
        found = []
        for i, (x, start) in enumerate(zip(features, self.starts)):
            head = Head(
                16 if self.patch else start, self.width, self.separable, self.patch, self.classes, self.class_width,
                self.embedding, self.fixed, name=f"head_{i}",
            )  # fmt: skip
            found.append(head(x, label, train).reshape(len(x), -1))
        return jnp.concatenate(found, 1)
