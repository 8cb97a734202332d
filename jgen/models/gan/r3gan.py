"""R3GAN's networks (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441): ResNets without normalisation.

Both players are stages of residual blocks with grouped convolutions at 4, 8, 16, ... pixels; the initial scales are those of
the authors' code (brownvc/R3GAN). Classes come as weights [B, classes]: one-hot, or anything between. Widths and so on are
listed in the order in which features pass through: from 4x4 on for G, and from the image on for D.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.dense import product
from jgen.nn.fir import downsample2d, setup_filter, upsample2d
from jgen.nn.grouped_conv import grouped_conv
from jgen.types import Array, DiscriminatorOutput, Key

SLOPE = 0.2
"""The slope of leaky ReLU below 0."""
BASE = 4
"""Side of the smallest features."""


def scaled_normal(gain: float = 1.0) -> nn.initializers.Initializer:
    """Normal weights of deviation gain / sqrt(fan-in), where the last axis is the outputs'."""

    def init(key: Key, shape: Sequence[int], dtype: Any = float) -> Array:
        return jax.random.normal(key, tuple(shape), dtype) * gain / np.prod(shape[:-1]) ** 0.5

    return init


def resampling_kernel(taps: Sequence[float]) -> np.ndarray:
    """The filter [n + 1, n + 1] of both resamplers, of sum 1: a box of two pixels, smoothed by n taps."""
    return setup_filter(np.convolve(np.asarray(taps, np.float64), [1.0, 1.0]), separable=False)


def check_stages(widths: Sequence[int], groups: Sequence[int], blocks: Sequence[int], expansion: int) -> None:
    """Raises UserError for lists of other lengths, and for groups that don't divide a stage's expanded width."""
    if not len(widths) == len(groups) == len(blocks) >= 1:
        raise UserError(f"widths={widths}, groups={groups}, blocks={blocks}: must be one number a stage each")
    for width, count in zip(widths, groups):
        if count < 1 or width * expansion % count:
            raise UserError(f"groups={count}: do not divide {width} x {expansion} channels")


class Pointwise(nn.Module):
    """A 1x1 convolution, or a dense layer, without bias."""

    features: int
    kernel_init: nn.initializers.Initializer = scaled_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return product(x, self.param("kernel", self.kernel_init, (x.shape[-1], self.features)))


class Residual(nn.Module):
    """x + L3 act(L2 act(L1 x + b1) + b2): 1x1 to the expanded width, a grouped convolution, 1x1 back."""

    groups: int
    expansion: int
    total: int
    """Residual blocks of the whole network, which the initial scale goes by (Zhang et al. 2019, Fixup)."""
    size: int = 3

    @nn.compact
    def __call__(self, x: Array) -> Array:
        hidden = x.shape[-1] * self.expansion
        init = scaled_normal((2 / (1 + SLOPE**2)) ** 0.5 * self.total**-0.25)

        def activated(y: Array, bias: str) -> Array:
            return nn.leaky_relu(y + self.param(bias, nn.initializers.zeros, (hidden,))[None, None, None], SLOPE)

        y = activated(Pointwise(hidden, init, name="expand")(x), "bias1")
        kernel = self.param("kernel", init, (self.size, self.size, hidden // self.groups, hidden))
        y = activated(grouped_conv(y, kernel, self.groups), "bias2")
        return x + Pointwise(x.shape[-1], nn.initializers.zeros, name="contract")(y)


class Basis(nn.Module):
    """Vectors [B, Z] -> 4x4 features [B, 4, 4, C]: learnt pictures, one a channel, times a linear map of the vector."""

    features: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        basis = self.param("basis", nn.initializers.normal(1.0), (BASE, BASE, self.features))
        return basis[None] * Pointwise(self.features, name="linear")(z)[:, None, None]


class Inner(nn.Module):
    """4x4 features [B, 4, 4, C] -> [B, features]: their products with learnt pictures, one a channel, and a linear map."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        basis = self.param("basis", scaled_normal(), (BASE, BASE, x.shape[-1]))
        return Pointwise(self.features, name="linear")(jnp.sum(x * basis[None], (1, 2)))


class Resample(nn.Module):
    """Twice the size (up), or half of it, and a 1x1 convolution where the width changes, at the smaller of both sizes."""

    features: int
    up: bool
    taps: tuple[float, ...]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = resampling_kernel(self.taps)
        x = x if self.up else downsample2d(x, kernel)
        x = x if x.shape[-1] == self.features else Pointwise(self.features, name="linear")(x)
        return upsample2d(x, kernel) if self.up else x


class Generator(nn.Module):
    """z [B, Z] (and classes [B, classes]) -> images [B, side, side, channels], side 4 x 2^(stages - 1); not bounded."""

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    blocks: tuple[int, ...]
    channels: int = 3
    z_dim: int = 64
    expansion: int = 2
    classes: int = 0
    embedding: int = 0
    """Size of the class's embedding, which z goes before."""
    size: int = 3
    taps: tuple[float, ...] = (1, 2, 1)

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None) -> Array:
        check_stages(self.widths, self.groups, self.blocks, self.expansion)
        x = z if label is None else jnp.concatenate([z, Pointwise(self.embedding, name="embed")(label)], -1)
        for i, (width, groups, count) in enumerate(zip(self.widths, self.groups, self.blocks)):
            first = Resample(width, True, self.taps, name=f"stage{i}_0") if i else Basis(width, name="stage0_0")
            x = first(x)
            for k in range(count):
                x = Residual(groups, self.expansion, sum(self.blocks), self.size, name=f"stage{i}_{k + 1}")(x)
        return Pointwise(self.channels, name="rgb")(x)


class Discriminator(nn.Module):
    """Images [B, side, side, C] (and classes [B, classes]) -> DiscriminatorOutput; side 4 x 2^(stages - 1)."""

    widths: tuple[int, ...]
    groups: tuple[int, ...]
    blocks: tuple[int, ...]
    expansion: int = 2
    classes: int = 0
    embedding: int = 0
    """Size of the class's embedding, whose product with as many features is the logit; there is no other term."""
    size: int = 3
    taps: tuple[float, ...] = (1, 2, 1)

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        check_stages(self.widths, self.groups, self.blocks, self.expansion)
        x, last = Pointwise(self.widths[0], name="rgb")(x), len(self.widths) - 1
        for i, (groups, count) in enumerate(zip(self.groups, self.blocks)):
            for k in range(count):
                x = Residual(groups, self.expansion, sum(self.blocks), self.size, name=f"stage{i}_{k}")(x)
            name = f"stage{i}_{count}"
            if i < last:
                x = Resample(self.widths[i + 1], False, self.taps, name=name)(x)
            else:
                x = Inner(self.embedding if self.classes else 1, name=name)(x)
        if label is None:
            return DiscriminatorOutput(x[:, 0])
        embed = Pointwise(self.embedding, scaled_normal(self.embedding**-0.5), name="embed")
        return DiscriminatorOutput(jnp.sum(x * embed(label), -1))
