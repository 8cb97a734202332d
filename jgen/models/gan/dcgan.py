"""DCGAN's shape of small convolutional players (Radford et al. 2015, arXiv:1511.06434).

The generator ends in tanh and has batch normalisation; the discriminator has none, so that gradient penalties stay per image.
Both go by factors of 2 from 4, or the odd number that halving ends at: 8 from 4, 28 from 7, 32 from 4. Labels come as weights
[B, classes]: one-hot, or anything between.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.models.gan.heads import Conditioning, discriminator_output, with_label_planes
from jgen.nn.conv import Conv3x3
from jgen.nn.norm import BatchNorm
from jgen.nn.precision import at_least_float32
from jgen.nn.resample import doublings, downsample
from jgen.types import Array, DiscriminatorOutput, Dtype

INIT = nn.initializers.he_normal()


class Generator(nn.Module):
    """z [B, Z] (and labels [B, classes]) -> images [B, size, size, channels] in (-1, 1). Statistics are in "batch_stats"."""

    size: int
    channels: int
    width: int = 64
    """Channels of the last features; each level before has twice as many."""
    dtype: Dtype = None

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool = False) -> Array:
        levels = doublings(self.size)
        start, width = self.size >> levels, self.width << levels
        z = z if label is None else jnp.concatenate([z, label], -1)

        def norm(x: Array) -> Array:
            return nn.relu(BatchNorm()(x, train))

        x = nn.Dense(start * start * width, kernel_init=INIT, dtype=self.dtype)(z).reshape(-1, start, start, width)
        for _ in range(levels):
            width //= 2
            x = Conv3x3(width, dtype=self.dtype, kernel_init=INIT, up=True)(norm(x))
        return jnp.tanh(at_least_float32(Conv3x3(self.channels, dtype=self.dtype)(norm(x))))


class Discriminator(nn.Module):
    """Images [B, size, size, C] (and labels [B, classes]) -> DiscriminatorOutput.

    conditioning: as of `discriminator_output`.
    """

    width: int = 64
    """Channels of the first level; each further one has twice as many."""
    conditioning: Conditioning = "none"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        levels = doublings(x.shape[1])
        x = with_label_planes(x, label, self.conditioning)
        x = Conv3x3(self.width, dtype=self.dtype, kernel_init=INIT)(x)
        for i in range(levels):
            y = Conv3x3(self.width << (i + 1), dtype=self.dtype, kernel_init=INIT)(nn.leaky_relu(x, 0.2))
            x = downsample(y)
        features = nn.leaky_relu(x, 0.2).reshape(len(x), -1)
        return discriminator_output(at_least_float32(features), label, self.conditioning)
