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


def root(squares: Array) -> Array:
    """A square root whose derivative at zero is zero: a function that is flat somewhere must not give NaN."""
    positive = squares > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0)), 0.0)


def great_circle(a: Array, b: Array) -> tuple[Array, Array, Array]:
    """(u, v, angle): cos(t angle) u + sin(t angle) v goes from the direction of a to that of b [..., D].

    u and v are unit vectors across each other. Between parallel or opposite vectors v is some direction across, always the
    same one. The direction of zero is zero.
    """
    u, other = _unit(a), _unit(b)
    cosine = jnp.sum(u * other, -1, keepdims=True)
    across = other - cosine * u
    sine = jnp.linalg.norm(across, axis=-1, keepdims=True)
    least = jax.nn.one_hot(jnp.argmin(jnp.abs(u), -1), u.shape[-1], dtype=u.dtype)
    any_across = _unit(least - jnp.sum(least * u, -1, keepdims=True) * u)
    v = jnp.where(sine < 1e-6, any_across, across / jnp.where(sine < 1e-6, 1.0, sine))
    return u, v, jnp.arctan2(sine, cosine)[..., 0]


def _unit(x: Array) -> Array:
    size = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return x / jnp.where(size == 0, 1.0, size)


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
