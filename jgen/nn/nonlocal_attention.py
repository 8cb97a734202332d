"""The non-local block of SAGAN and BigGAN: attention of all pixels to a half-size image (Zhang et al. 2018,
arXiv:1805.08318)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.precision import at_least_float32
from jgen.nn.spectral import Conv, SpectralNorm
from jgen.types import Array


class NonLocal(nn.Module):
    """x [B, H, W, C] + gamma * attention, gamma 0 at the start; even H and W.

    Keys have C/8 channels and values C/2, both max-pooled; scores are not divided by the root of the channels. Raises
    UserError for fewer than 8 channels.
    """

    norm: SpectralNorm | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        if channels < 8:
            raise UserError(
                f"attention at {height}x{width}: needs at least 8 channels, and there are {channels}; take a larger width"
            )

        def one_by_one(name: str, features: int) -> Conv:
            return Conv(features, 1, self.norm, use_bias=False, kernel_init=self.kernel_init, name=name)

        def pooled(y: Array) -> Array:
            return jnp.max(y.reshape(batch, height // 2, 2, width // 2, 2, -1), (2, 4)).reshape(batch, -1, y.shape[-1])

        query = one_by_one("theta", channels // 8)(x).reshape(batch, height * width, -1)
        key, value = pooled(one_by_one("phi", channels // 8)(x)), pooled(one_by_one("g", channels // 2)(x))
        shares = jax.nn.softmax(at_least_float32(jnp.einsum("bqc,bkc->bqk", query, key)), -1).astype(x.dtype)
        seen = jnp.einsum("bqk,bkc->bqc", shares, value).reshape(batch, height, width, -1)
        return self.param("gamma", nn.initializers.zeros, ()) * one_by_one("o", channels)(seen) + x
