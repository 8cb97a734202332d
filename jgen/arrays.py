"""Helpers for code that works image by image: one number an image against a batch of images."""

import jax
import jax.numpy as jnp
from jax.experimental.shard_alike import shard_alike

from jgen.types import Array, PyTree


def expand_dims_like(values: Array, x: Array) -> Array:
    """values [B] as [B, 1, ...], with as many axes as x [B, ...]."""
    return values.reshape(-1, *[1] * (x.ndim - 1))


def dot(a: Array, b: Array) -> Array:
    """Inner products [B] of the images of two arrays [B, ...]."""
    return jnp.sum((a * b).reshape(len(a), -1), -1)


def shard_like(draws: PyTree, batch: Array) -> PyTree:
    """Draws, arrays [b, ...], laid over the devices as batch [B, ...] is; b divides B, else they stay as they are.

    A draw that meets no array of the batch says nothing of where it belongs, and every device would work on all of it.
    """

    def alike(x: Array) -> Array:
        if batch.shape[0] % x.shape[0]:
            return x
        rows = batch.reshape(x.shape[0], -1, *batch.shape[1:])[(slice(None), *[0] * batch.ndim)]
        return shard_alike(x, jnp.broadcast_to(expand_dims_like(rows, x), x.shape).astype(x.dtype))[0]

    return jax.tree.map(alike, draws)
