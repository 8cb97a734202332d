"""Classifiers whose logits are the log density ratios of NCP-VAE (Aneja et al. 2020, arXiv:2010.02917)."""

import flax.linen as nn
import jax.numpy as jnp

from jgen.models.nvae import SqueezeExcite
from jgen.nn.conv import Conv3x3
from jgen.nn.dense import Dense
from jgen.nn.precision import at_least_float32
from jgen.types import Array


class GroupRatio(nn.Module):
    """Latents of a group [N, side, side, latents], given the features of the groups above -> logits [N].

    Swish, residual blocks of two 3x3 convolutions with squeeze and excitation, the mean over the image. Logits begin at 0.
    """

    width: int = 64
    blocks: int = 2

    def setup(self) -> None:
        self.of_latents = Conv3x3(self.width)
        self.of_context = Conv3x3(self.width)
        self.residuals = [(Conv3x3(self.width), Conv3x3(self.width), SqueezeExcite()) for _ in range(self.blocks)]
        self.head = Dense(1, kernel_init=nn.initializers.zeros)

    def __call__(self, z: Array, context: Array) -> Array:
        """context: as `embed` gives it [N, side, side, width]."""
        h = self.of_latents(z) + context
        for first, second, gates in self.residuals:
            h = h + gates(second(nn.swish(first(nn.swish(h)))))
        return self.head(jnp.mean(at_least_float32(nn.swish(h)), (1, 2)))[:, 0]

    def embed(self, features: Array) -> Array:
        """Features [N, side, side, any] of the decoder above a group -> [N, side, side, width]."""
        return self.of_context(nn.swish(features))


class VectorRatio(nn.Module):
    """Latents [N, D] of a plain VAE -> logits [N]: dense residual blocks. Logits begin at 0."""

    width: int = 64
    blocks: int = 2

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = nn.Dense(self.width, name="of_latents")(z)
        for i in range(self.blocks):
            inner = nn.Dense(self.width, name=f"block_{i}_0")(nn.swish(h))
            h = h + nn.Dense(self.width, name=f"block_{i}_1")(nn.swish(inner))
        return nn.Dense(1, kernel_init=nn.initializers.zeros, name="head")(at_least_float32(nn.swish(h)))[:, 0]
