"""Normalisation layers."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.precision import at_least_float32
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
        per_channel = at_least_float32(x.reshape(x.shape[0], -1, channels))
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


def batch_moments(module: nn.Module, x: Array, train: bool, momentum: float, unbiased: bool = True) -> tuple[Array, Array]:
    """(mean, variance) [C] to normalise x [B, ..., C] with: the batch's in training, else the running ones.

    For a module's compact method, whose collection "batch_stats" holds the running ones. In training they move by `momentum`
    towards the batch's, the variance towards the unbiased one where that is asked for. Where the collection "moments" is
    mutable, it receives the batch's own mean and biased variance. Over several devices a batch is the whole one.
    """
    shape = (x.shape[-1],)
    mean = module.variable("batch_stats", "mean", jnp.zeros, shape)
    variance = module.variable("batch_stats", "var", jnp.ones, shape)
    if not train:
        return mean.value, variance.value
    axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
    now_mean, now_variance = jnp.mean(x, axes), jnp.var(x, axes)
    if not module.is_initializing():
        target = now_variance * (count / (count - 1) if unbiased else 1)
        mean.value += momentum * (now_mean - mean.value)
        variance.value += momentum * (target - variance.value)
        if module.is_mutable_collection("moments"):
            module.put_variable("moments", "mean", now_mean)
            module.put_variable("moments", "var", now_variance)
    return now_mean, now_variance


class BatchNorm(nn.Module):
    """Batch normalisation over all but the channels, its running variance the unbiased one, as PyTorch keeps it.

    Over several devices the statistics are those of the whole batch.
    """

    momentum: float = 0.1
    epsilon: float = 1e-5
    unbiased: bool = True
    """False keeps the biased running variance."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        own, x = x.dtype, at_least_float32(x)  # statistics of bfloat16 would be rounded
        shape = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean, variance = batch_moments(self, x, train, self.momentum, self.unbiased)
        wide = (None,) * (x.ndim - 1)
        return ((x - mean[wide]) * (scale / jnp.sqrt(variance + self.epsilon))[wide] + bias[wide]).astype(own)
