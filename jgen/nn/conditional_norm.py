"""Class-conditional batch normalisation (Dumoulin et al. 2016, arXiv:1610.07629; de Vries et al. 2017, arXiv:1707.00683), with
BigGAN's shared embedding (Brock et al. 2018, arXiv:1809.11096, appendix B)."""

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.norm import batch_moments
from jgen.nn.precision import at_least_float32
from jgen.nn.spectral import Dense, Embed, SpectralNorm
from jgen.types import Array


class ConditionalBatchNorm(nn.Module):
    """x [B, H, W, C] normalised, times 1 + gain(y), plus bias(y).

    y [B, D] is a vector that gain and bias are linear in, spectrally normalised; without `shared` it is classes as weights
    [B, classes], with an embedding of gains and one of biases that no norm divides.
    """

    norm: SpectralNorm | None = None
    shared: bool = True
    epsilon: float = 1e-5
    momentum: float = 0.1
    unbiased: bool = True
    """False keeps the biased running variance, as BigGAN's own batch norm does."""
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        wide = at_least_float32(x)  # statistics of bfloat16 would be rounded
        mean, variance = batch_moments(self, wide, train, self.momentum, self.unbiased)

        def linear(name: str) -> Array:
            if self.shared:
                return Dense(x.shape[-1], self.norm, use_bias=False, kernel_init=self.kernel_init, name=name)(y)
            return Embed(x.shape[-1], embedding_init=self.kernel_init, name=name)(y)

        gain = (1 + linear("gain")) / jnp.sqrt(variance + self.epsilon)[None]
        return ((wide - mean[None, None, None]) * gain[:, None, None] + linear("bias")[:, None, None]).astype(x.dtype)
