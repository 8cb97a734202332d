"""The ResNets of WGAN-GP (Gulrajani et al. 2017, arXiv:1704.00028, appendix F), as the authors' code has them for CIFAR-10.

All levels have one width. The generator has batch normalisation and ends in tanh; the critic has no normalisation, so that its
gradient penalty stays per image: its blocks halve the image down to 8 pixels, two more keep the size, and a mean over pixels
follows. Labels come as weights [B, classes]: one-hot, or anything between.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.models.gan.heads import Conditioning, discriminator_output, with_label_planes
from jgen.nn.conv import Conv3x3
from jgen.nn.norm import BatchNorm
from jgen.nn.precision import at_least_float32
from jgen.nn.resample import doublings, downsample, upsample
from jgen.types import Array, DiscriminatorOutput, Dtype

HE = nn.initializers.variance_scaling(2.0, "fan_avg", "uniform")
GLOROT = nn.initializers.glorot_uniform()


class Generator(nn.Module):
    """z [B, Z] (and labels [B, classes]) -> images [B, size, size, channels] in (-1, 1). Statistics are in "batch_stats"."""

    size: int
    channels: int
    width: int = 128
    dtype: Dtype = None

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool = False) -> Array:
        levels = doublings(self.size)
        start, width = self.size >> levels, self.width
        z = z if label is None else jnp.concatenate([z, label], -1)

        def norm(x: Array) -> Array:
            return nn.relu(BatchNorm()(x, train))

        x = nn.Dense(start * start * width, kernel_init=GLOROT, dtype=self.dtype)(z).reshape(-1, start, start, width)
        for _ in range(levels):
            y = Conv3x3(width, dtype=self.dtype, kernel_init=HE, up=True)(norm(x))
            y = Conv3x3(width, dtype=self.dtype, kernel_init=HE)(norm(y))
            x = upsample(nn.Dense(width, kernel_init=GLOROT, dtype=self.dtype)(x)) + y
        return jnp.tanh(at_least_float32(Conv3x3(self.channels, dtype=self.dtype, kernel_init=GLOROT)(norm(x))))


class Discriminator(nn.Module):
    """Images [B, size, size, C] (and labels [B, classes]) -> DiscriminatorOutput.

    conditioning: as of `discriminator_output`.
    """

    width: int = 128
    conditioning: Conditioning = "none"
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        halvings = max(doublings(x.shape[1]) - 1, 1)
        x = with_label_planes(x, label, self.conditioning)
        for i in range(halvings + 2):
            y = Conv3x3(self.width, dtype=self.dtype, kernel_init=HE)(nn.relu(x) if i else x)
            y = Conv3x3(self.width, dtype=self.dtype, kernel_init=HE)(nn.relu(y))
            if i < halvings:
                x, y = nn.Dense(self.width, kernel_init=GLOROT, dtype=self.dtype)(downsample(x)), downsample(y)
            x = x + y
        features = jnp.mean(at_least_float32(nn.relu(x)), (1, 2))
        return discriminator_output(features, label, self.conditioning)
