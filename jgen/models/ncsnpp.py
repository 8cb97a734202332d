"""NCSN++, DDPM++ and DDPM as the authors of score-based SDEs have them (Song et al. 2021, arXiv:2011.13456, appendix H).

One network with every option of their code, for their checkpoints; `jgen.models.edm.SongUNet` is EDM's form of it, with fewer
options and without this network's last division. Submodules have their places in the authors' list of modules as their names
(`all_modules_7` is `all_modules.7`), and within a block the authors' names.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.models.edm import GLOROT, HALF, SMALL, FusedDown, check_levels, fourier
from jgen.nn.attention import attention
from jgen.nn.barrier import settled
from jgen.nn.conv import Conv3x3
from jgen.nn.dense import Dense
from jgen.nn.embed import timestep_embedding
from jgen.nn.fir import downsample2d, setup_filter, upsample2d
from jgen.nn.nonlinearity import nonlinearity
from jgen.nn.norm import GroupNorm, groups_of
from jgen.nn.precision import at_least_float32
from jgen.nn.resample import downsample, upsample
from jgen.types import Array, Dtype

Direction = Literal["up", "down"]
NIN = nn.initializers.variance_scaling(0.1, "fan_avg", "uniform")
"""Initialiser of the 1x1 layers of attention."""


@dataclasses.dataclass(frozen=True)
class Style:
    """Settings that the blocks of a network share."""

    nonlinearity: str = "swish"
    groups: int = 0
    """Groups of the norms; 0 for at least 4 channels a group and at most 32 groups."""
    taps: tuple[float, ...] = ()
    """Taps of the filter that resamples; none for the mean of squares and for repeated pixels."""
    rescale: bool = False
    """Sums of two branches are divided by the root of 2."""
    dropout: float = 0.0
    dtype: Dtype = None

    def act(self, x: Array) -> Array:
        return nonlinearity(self.nonlinearity)(x)

    def norm(self, channels: int, name: str) -> GroupNorm:
        return GroupNorm(self.groups or groups_of(channels), 1e-6, self.dtype, name=name)

    def dense(self, features: int, name: str, init: nn.initializers.Initializer = GLOROT) -> Dense:
        return Dense(features, dtype=self.dtype, kernel_init=init, name=name)

    def conv(self, features: int, name: str, init: nn.initializers.Initializer = GLOROT, up: bool = False) -> Conv3x3:
        return Conv3x3(features, 1, self.dtype, init, up=up, name=name)

    def add(self, x: Array, y: Array) -> Array:
        return (x + y) * HALF if self.rescale else x + y

    def resized(self, x: Array, direction: Direction) -> Array:
        """x [B, H, W, C] at twice or half the size."""
        if not self.taps:
            return {"up": upsample, "down": downsample}[direction](x)
        f = setup_filter(self.taps, separable=True)
        return {"up": upsample2d, "down": downsample2d}[direction](x, f)


class FourierFeatures(nn.Module):
    """[B, 2 K] of logarithms of noise levels [B]: sines, then cosines, of K random frequencies, which are not trained."""

    features: int
    scale: float = 16.0

    @nn.compact
    def __call__(self, noise: Array) -> Array:
        w = self.param("W", nn.initializers.normal(self.scale), (self.features,))
        return fourier(noise, jax.lax.stop_gradient(w))


class Resample(nn.Module):
    """Half or twice the size, with a convolution to `features` channels or without one.

    A strided convolution is padded right and below only; with a filter it comes before the filter and shares its padding.
    Raises UserError for a convolution with a filter upwards: the authors' code of that one does not run.
    """

    direction: Direction
    style: Style
    features: int = 0
    """0 for no convolution."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        style = self.style
        if not self.features:
            return style.resized(x, self.direction)
        if not style.taps:
            if self.direction == "up":
                return style.conv(self.features, "Conv_0", up=True)(x)
            return Conv3x3(self.features, 2, style.dtype, GLOROT, asymmetric=True, name="Conv_0")(x)
        if self.direction == "up":
            raise UserError("taps: a convolution to twice the size with a filter is not built; the authors' code of it fails")
        # The filter is turned there, and not here.
        return FusedDown(self.features, style.taps[::-1], name="Conv2d_0")(x)


class Combine(nn.Module):
    """The image's pyramid, by a 1x1 convolution to as many channels, added to features or put before them."""

    style: Style
    method: Literal["sum", "cat"] = "sum"

    @nn.compact
    def __call__(self, pyramid: Array, h: Array) -> Array:
        y = self.style.dense(h.shape[-1], "Conv_0")(pyramid)
        return y + h if self.method == "sum" else jnp.concatenate([y, h], -1)


class ResidualBlock(nn.Module):
    """norm, act, conv, plus the embedding, norm, act, conv; resampled after the first act, and so is the skip.

    The skip has a 1x1 layer (`skip` names it) where the channels change or there is resampling.
    """

    features: int
    style: Style
    resample: Direction | None = None
    skip: str = "Conv_2"

    @nn.compact
    def __call__(self, x: Array, emb: Array | None, train: bool) -> Array:
        style, direction = self.style, self.resample

        def resized(h: Array) -> Array:
            return h if direction is None else style.resized(h, direction)

        repeat = direction == "up" and not style.taps
        known = None if emb is None else style.dense(self.features, "Dense_0")(style.act(emb))
        between = None if direction is None or repeat else resized
        norm, conv = style.norm(x.shape[-1], "GroupNorm_0"), style.conv(self.features, "Conv_0", up=repeat)
        h = self._convolved(x, norm, conv, between, known)
        drop = nn.Dropout(style.dropout, deterministic=False) if style.dropout and train else None
        norm, conv = style.norm(h.shape[-1], "GroupNorm_1"), style.conv(self.features, "Conv_1", SMALL)
        h = self._convolved(h, norm, conv, drop)
        before, x = x.shape[-1], resized(x)
        if before != self.features or direction is not None:
            x = style.dense(self.features, self.skip)(x)
        return settled(style.add(x, h))

    def _convolved(
        self,
        x: Array,
        norm: GroupNorm,
        conv: Conv3x3,
        between: Callable[[Array], Array] | None,
        offset: Array | None = None,
    ) -> Array:
        """conv(between(act(norm(x)))) + offset [B, C]."""
        if self.style.nonlinearity in ("swish", "silu"):
            return conv(x, norm.affine(x), between, offset)
        h = self.style.act(norm(x))
        return conv(h if between is None else between(h), offset=offset)


class AttentionBlock(nn.Module):
    """Self-attention of one head over all pixels, added to x."""

    style: Style

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, height, width, c = x.shape
        y = self.style.norm(c, "GroupNorm_0")(x).reshape(b, height * width, 1, c)
        q, k, v = (self.style.dense(c, f"NIN_{i}", NIN)(y) for i in range(3))
        y = attention(q, k, v).reshape(x.shape)
        return settled(self.style.add(x, self.style.dense(c, "NIN_3", SMALL)(y)))


class NCSNpp(nn.Module):
    """x [B, H, W, C], label [B] -> [B, H, W, C] in float32: the score, or what the authors' wrappers make it of.

    label: with Fourier features the noise level sigma itself, else the number of a time step. H and W must be divisible by
    2^(levels - 1). Raises UserError for sizes that do not fit, and for the combinations that `Resample` has not.
    """

    out_channels: int = 3
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    num_res_blocks: int = 4
    attention_resolutions: Sequence[int] = (16,)
    """In pixels; the middle always has attention."""
    style: Style = Style()
    embedding: Literal["fourier", "positional"] = "fourier"
    fourier_scale: float = 16.0
    """Standard deviation of the frequencies at the start."""
    conditional: bool = True
    """Without, no block hears the label."""
    block: Literal["biggan", "ddpm"] = "biggan"
    """biggan: blocks resample. ddpm: layers of their own do, with a convolution where `resample_conv` says so."""
    resample_conv: bool = True
    output: Literal["none", "output_skip", "residual"] = "none"
    """The pyramid on the way up. output_skip: every level adds its image to the result. residual: features of every level are
    added to the one before, upsampled by a convolution."""
    input: Literal["none", "input_skip", "residual"] = "residual"
    """The pyramid on the way down. input_skip: every level hears the image at its size, through `Combine`. residual: a stack of
    downsampling convolutions of the image, added to the features."""
    combine: Literal["sum", "cat"] = "sum"
    centered: bool = True
    """Images are in [-1, 1]; else in [0, 1], and mapped to [-1, 1] first."""
    scale_by_sigma: bool = False
    """The result is divided by the noise level."""
    sigma_max: float = 50.0
    sigma_min: float = 0.01
    num_scales: int = 1000
    """With time steps, the levels that they stand for, for `scale_by_sigma`: geometric, noisiest first."""

    def _embed(self, label: Array, names: Iterator[str]) -> Array | None:
        if self.embedding == "fourier":
            emb = FourierFeatures(self.channels, self.fourier_scale, name=next(names))(jnp.log(label))
        else:
            emb, half = timestep_embedding(label, self.channels, endpoint=True), self.channels // 2
            # Sines come first there; an odd width ends in a zero.
            emb = jnp.concatenate([emb[:, half : 2 * half], emb[:, :half], emb[:, 2 * half :]], -1)
        if not self.conditional:
            return None
        emb = self.style.dense(4 * self.channels, next(names))(emb)
        return self.style.dense(4 * self.channels, next(names))(self.style.act(emb))

    def _level(self, label: Array) -> Array:
        """The noise level of a label [B]."""
        if self.embedding == "fourier":
            return label
        sigmas = np.geomspace(self.sigma_max, self.sigma_min, self.num_scales)
        return jnp.asarray(sigmas, jnp.float32)[label.astype(jnp.int32)]

    @nn.compact
    def __call__(self, x: Array, label: Array, *, train: bool = False) -> Array:
        check_levels(x, len(self.channel_mult))
        names = (f"all_modules_{i}" for i in range(1_000_000))
        emb, skip = self._embed(label, names), "Conv_2" if self.block == "biggan" else "NIN_0"

        def block(h: Array, features: int, resample: Direction | None = None) -> Array:
            return ResidualBlock(features, self.style, resample, skip, name=next(names))(h, emb, train)

        x = x if self.centered else 2 * x - 1
        skips = self._descend(x, block, names)
        h = block(skips[-1], skips[-1].shape[-1])
        h = AttentionBlock(self.style, name=next(names))(h)
        h = block(h, h.shape[-1])
        y = at_least_float32(self._ascend(h, skips, block, names))
        return y / expand_dims_like(self._level(label), y) if self.scale_by_sigma else y

    def _resized(self, h: Array, direction: Direction, block: Callable[..., Array], names: Iterator[str]) -> Array:
        """Features at the size of the next level."""
        if self.block == "biggan":
            return block(h, h.shape[-1], direction)
        return Resample(direction, self.style, self.resample_conv * h.shape[-1], name=next(names))(h)

    def _descend(self, x: Array, block: Callable[..., Array], names: Iterator[str]) -> list[Array]:
        """Every feature map that the ascending half will read, first to last."""
        style, pyramid = self.style, x
        h = style.conv(self.channels, next(names))(x)
        skips = [h]
        for level, mult in enumerate(self.channel_mult):
            for _ in range(self.num_res_blocks):
                h = block(h, mult * self.channels)
                if x.shape[2] >> level in self.attention_resolutions:
                    h = AttentionBlock(style, name=next(names))(h)
                skips.append(h)
            if level == len(self.channel_mult) - 1:
                break
            h = self._resized(h, "down", block, names)
            if self.input == "input_skip":
                pyramid = style.resized(pyramid, "down")  # no module of the authors' list
                h = Combine(style, self.combine, name=next(names))(pyramid, h)
            elif self.input == "residual":
                h = pyramid = style.add(Resample("down", style, h.shape[-1], name=next(names))(pyramid), h)
            skips.append(h)
        return skips

    def _ascend(self, h: Array, skips: list[Array], block: Callable[..., Array], names: Iterator[str]) -> Array:
        """The result, before any division."""
        style, size = self.style, skips[0].shape[2]

        def activated(h: Array) -> Array:
            return style.act(style.norm(h.shape[-1], next(names))(h))

        pyramid: Array | None = None
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for _ in range(self.num_res_blocks + 1):
                h = block(jnp.concatenate([h, skips.pop()], -1), mult * self.channels)
            if size >> level in self.attention_resolutions:
                h = AttentionBlock(style, name=next(names))(h)
            if self.output == "output_skip":
                y = activated(h)
                image = style.conv(self.out_channels, next(names), SMALL)(y)
                pyramid = image if pyramid is None else style.resized(pyramid, "up") + image
            elif self.output == "residual" and pyramid is None:
                y = activated(h)
                pyramid = style.conv(h.shape[-1], next(names))(y)
            elif self.output == "residual":
                h = pyramid = style.add(Resample("up", style, h.shape[-1], name=next(names))(pyramid), h)
            if level:
                h = self._resized(h, "up", block, names)
        if self.output == "output_skip":
            assert pyramid is not None
            return pyramid
        y = activated(h)
        return style.conv(self.out_channels, next(names), SMALL)(y)
