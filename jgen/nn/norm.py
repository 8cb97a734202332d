"""Normalisation layers."""

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.types import Array


class GroupNorm(nn.Module):
    """Group normalisation over channels-last features [B, ..., C], with statistics in float32 (Wu & He 2018)."""

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        channels = x.shape[-1]
        if channels % self.groups:
            raise UserError(f"norm groups={self.groups}: do not divide {channels} channels")
        scale = self.param("scale", nn.initializers.ones, (channels,))
        bias = self.param("bias", nn.initializers.zeros, (channels,))
        per_channel = x.reshape(x.shape[0], -1, channels).astype(jnp.float32)
        # Per-channel sums first: they run along contiguous memory, and only [B, C] numbers are left to group.
        mean = _grouped(jnp.mean(per_channel, axis=1), self.groups)
        square = _grouped(jnp.mean(jnp.square(per_channel), axis=1), self.groups)
        inverse = 1 / jnp.sqrt(jnp.maximum(square - jnp.square(mean), 0.0) + self.epsilon)
        gain = inverse * scale[None]
        shift = bias[None] - mean * gain
        return (per_channel * gain[:, None] + shift[:, None]).reshape(x.shape).astype(self.dtype or x.dtype)


def _grouped(x: Array, groups: int) -> Array:
    """[B, C] -> [B, C], each channel replaced by the mean of its group."""
    means = jnp.mean(x.reshape(x.shape[0], groups, -1), axis=-1)
    return jnp.repeat(means, x.shape[-1] // groups, axis=-1)
