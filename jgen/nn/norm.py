"""Normalisation layers."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.types import Array


def groups_of(channels: int) -> int:
    """At least 4 channels a group, where there are so many, and at most 32 groups (EDM's rule).

    >>> [groups_of(n) for n in (2, 8, 64, 256)]
    [1, 2, 16, 32]
    """
    return min(32, max(channels // 4, 1))


class Affine(NamedTuple):
    """x [B, ..., C] -> gain * x + shift, gain and shift [B, C]."""

    gain: Array
    shift: Array

    def __call__(self, x: Array) -> Array:
        wide = (slice(None), *(None,) * (x.ndim - 2))
        return x * self.gain[wide] + self.shift[wide]

    def then(self, gain: Array, shift: Array) -> "Affine":
        """Followed by another."""
        return Affine(self.gain * gain, self.shift * gain + shift)


class GroupNorm(nn.Module):
    """Group normalisation over channels-last features [B, ..., C], with statistics in float32 (Wu & He 2018)."""

    groups: int = 32
    epsilon: float = 1e-5
    dtype: jnp.dtype | None = None

    def __call__(self, x: Array) -> Array:
        return self.affine(x)(x).astype(self.dtype or x.dtype)

    @nn.compact
    def affine(self, x: Array) -> Affine:
        """The scale and shift that normalise x, float32 whatever `dtype` is."""
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
        return Affine(gain, bias[None] - mean * gain)


def _grouped(x: Array, groups: int) -> Array:
    """[B, C] -> [B, C], each channel replaced by the mean of its group."""
    means = jnp.mean(x.reshape(x.shape[0], groups, -1), axis=-1)
    return jnp.repeat(means, x.shape[-1] // groups, axis=-1)


class BatchNorm(nn.Module):
    """Batch normalisation over all but the channels, its running variance the unbiased one, as PyTorch keeps it.

    Over several devices the statistics are those of the whole batch.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = x.astype(jnp.float32)  # statistics of bfloat16 would be rounded
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        variance = self.variable("batch_stats", "var", jnp.ones, shape)
        now_mean, now_variance = mean.value, variance.value
        if train:
            axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            now_mean, now_variance = jnp.mean(x, axes), jnp.var(x, axes)
            if not self.is_initializing():
                mean.value += self.momentum * (now_mean - mean.value)
                variance.value += self.momentum * (now_variance * count / (count - 1) - variance.value)
        wide = (None,) * (x.ndim - 1)
        return (x - now_mean[wide]) * (scale / jnp.sqrt(now_variance + self.epsilon))[wide] + bias[wide]
