"""What code that works image by image keeps writing: numbers of a batch against its images."""

import jax.numpy as jnp

from jgen.types import Array


def wide(values: Array, x: Array) -> Array:
    """values [B] as [B, 1, ...], with as many axes as x [B, ...]."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def dot(a: Array, b: Array) -> Array:
    """Inner products [B] of the images of two arrays [B, ...]."""
    return jnp.sum((a * b).reshape(len(a), -1), -1)
