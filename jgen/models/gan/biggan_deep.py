"""BigGAN-deep (Brock et al. 2018, arXiv:1809.11096, appendix B): bottleneck blocks whose shortcuts have no weights on the way
up, and the whole of z given to every block.

Widths, order of layers and names are those of the author's PyTorch code (ajbrock/BigGAN-PyTorch). Conditions and state are as
in `jgen.models.gan.biggan`. Every layer takes the class's embedding and then z, as in that code; TensorFlow Hub's networks
take them in the other order.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from jgen.models.gan.biggan import (
    INITIALIZERS,
    SN,
    WIDTHS,
    ClassHead,
    Head,
    Level,
    check_side,
    generator_levels,
    rectifier,
    small_side,
)
from jgen.nn.conditional_norm import ConditionalBatchNorm
from jgen.nn.nonlocal_attention import NonLocal
from jgen.nn.norm import BatchNorm
from jgen.nn.resample import downsample, upsample
from jgen.nn.spectral import Conv, Dense, Embed, SpectralNorm
from jgen.types import Array, DiscriminatorOutput

REDUCTION = 4
"""Channels of a block, in those of its hidden layers."""


def discriminator_levels(side: int, width: int) -> list[Level]:
    """The stages of D after its first convolution; each has blocks of its own."""
    check_side(side)
    if side <= 32:
        halvings, named = small_side(side)
        return [Level(4 * width, 4 * width, i < halvings, named) for i in range(halvings + 1)]
    chain = [width * n for n in (*WIDTHS[side][:0:-1], 16)]
    return [Level(a, b, True, side >> (i + 1)) for i, (a, b) in enumerate(pairwise(chain))]


class GeneratorBlock(nn.Module):
    """Four convolutions, each after a norm and relu; the shortcut drops the last channels where there are fewer."""

    features: int
    up: bool
    bn: Callable[..., ConditionalBatchNorm]
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer
    slope: float = 0.0

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        rectify, hidden = rectifier(self.slope), x.shape[-1] // REDUCTION

        def layer(index: int, h: Array, features: int, size: int = 3, up: bool = False) -> Array:
            conv = Conv(features, size, self.norm, kernel_init=self.kernel_init, up=up, name=f"conv{index}")
            return conv(rectify(self.bn(name=f"bn{index}")(h, y, train)))

        h = layer(1, x, hidden, 1)
        h = layer(2, h, hidden, up=self.up)
        h = layer(4, layer(3, h, hidden), self.features, 1)
        kept = x[..., : self.features]
        return h + (upsample(kept) if self.up else kept)


class DiscriminatorBlock(nn.Module):
    """Four convolutions, half the size before the last; the shortcut's further channels come from a 1x1 convolution."""

    features: int
    down: bool
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer
    slope: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rectify = rectifier(self.slope)

        def conv(name: str, features: int, size: int) -> Conv:
            return Conv(features, size, self.norm, kernel_init=self.kernel_init, name=name)

        hidden, missing = self.features // REDUCTION, self.features - x.shape[-1]
        smaller = downsample if self.down else lambda x: x
        h = rectify(conv("conv1", hidden, 1)(rectify(x)))
        h = rectify(conv("conv2", hidden, 3)(h))
        h = smaller(rectify(conv("conv3", hidden, 3)(h)))
        h, x = conv("conv4", self.features, 1)(h), smaller(x)
        return h + (jnp.concatenate([x, conv("conv_sc", missing, 1)(x)], -1) if missing else x)


class Generator(nn.Module):
    """z [B, Z], classes [B, classes] -> images [B, side, side, channels] in (-1, 1)."""

    side: int
    channels: int = 3
    width: int = 128
    z_dim: int = 128
    classes: int = 1000
    attention: tuple[int, ...] = ()
    """Sides of the features that a non-local block follows."""
    shared_dim: int = 128
    depth: int = 2
    """Blocks a stage."""
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"
    bottom: int = 4
    bn_epsilon: float = 1e-5
    unbiased: bool = True
    """The running variance is the unbiased one; False as the author's "mybn"."""
    last_bn_epsilon: float = 1e-5
    slope: float = 0.0
    """Slope of the activations below 0; the author's are ReLU."""

    def setup(self) -> None:
        levels, kernel_init = generator_levels(self.side, self.width), INITIALIZERS[self.initializer]
        self.embedding = Embed(self.shared_dim, embedding_init=kernel_init)
        self.linear = Dense(levels[0].inputs * self.bottom**2, self.norm, kernel_init=kernel_init)
        bn = partial(ConditionalBatchNorm, self.norm, True, self.bn_epsilon, unbiased=self.unbiased, kernel_init=kernel_init)
        self.blocks: list[list[Any]] = [
            [GeneratorBlock(level.outputs if last else level.inputs, last, bn, self.norm, kernel_init, self.slope)]
            + [NonLocal(self.norm, kernel_init)] * (last and level.side in self.attention)
            for level in levels
            for last in [False] * (self.depth - 1) + [True]
        ]
        self.bn = BatchNorm(epsilon=self.last_bn_epsilon, unbiased=self.unbiased)
        self.rgb = Conv(self.channels, norm=self.norm, kernel_init=kernel_init)

    def embed(self, label: Array) -> Array:
        """The classes' embeddings [B, shared_dim]."""
        return self.embedding(label)

    def synthesize(self, z: Array, embedding: Array, *, train: bool = False) -> Array:
        """Images of latents and of what `embed` gave, or anything between two such."""
        y = jnp.concatenate([embedding, z], -1)
        h = self.linear(y).reshape(len(z), -1, self.bottom, self.bottom)  # the author's order of units
        h = jnp.moveaxis(h, 1, -1)
        for block, *attention in self.blocks:
            h = block(h, y, train)
            for layer in attention:
                h = layer(h)
        return jnp.tanh(self.rgb(rectifier(self.slope)(self.bn(h, train))))

    def __call__(self, z: Array, label: Array, *, train: bool = False) -> Array:
        return self.synthesize(z, self.embed(label), train=train)


class Discriminator(nn.Module):
    """Images [B, side, side, C], with classes [B, classes] -> DiscriminatorOutput."""

    side: int
    width: int = 128
    classes: int = 1000
    attention: tuple[int, ...] = ()
    depth: int = 2
    """Blocks a stage, of which the first halves the size."""
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"
    head: Head = "projection"
    slope: float = 0.0
    """Slope of the activations below 0; the author's are ReLU."""

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        kernel_init = INITIALIZERS[self.initializer]
        levels = discriminator_levels(self.side, self.width)
        x = Conv(levels[0].inputs, norm=self.norm, kernel_init=kernel_init, name="input_conv")(x)
        for i, level in enumerate(levels):
            for j in range(self.depth):
                down = level.resample and j == 0
                name = f"blocks_{i}_{j}"
                x = DiscriminatorBlock(level.outputs, down, self.norm, kernel_init, self.slope, name=name)(x)
            if level.side in self.attention:
                x = NonLocal(self.norm, kernel_init, name=f"blocks_{i}_{self.depth}")(x)
        h = jnp.sum(rectifier(self.slope)(x), (1, 2))
        return ClassHead(self.classes, False, self.norm, kernel_init, self.head, name="head")(h, label)
