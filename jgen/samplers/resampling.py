"""Sampling-importance-resampling: draws of a base density, one of which is kept with a chance in proportion to its weight."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.samplers.common import noise
from jgen.types import Array, Key

LogRatio = Callable[[Array], Array]
"""x [N, ...] -> log of target over base, up to a constant [N]; row n belongs to image n mod B."""


def resample(
    log_ratio: LogRatio, keys: Key, shape: tuple[int, ...], *, proposals: int, deviation: float = 1.0, at_once: int = 16
) -> Array:
    """x [B, *shape] of the density N(0, deviation^2) times the ratio, as far as so many proposals can tell it.

    The one of a categorical choice by the weights is the greatest log weight + Gumbel noise, so that a scan keeps the best so
    far of each image: memory does not grow with the proposals. at_once: proposals of a step of the scan, which changes
    nothing. Raises UserError for no proposals.
    """
    if proposals < 1:
        raise UserError(f"proposals={proposals}: a sampler needs at least 1")
    batch, size = len(keys), min(at_once, proposals)
    steps = -(-proposals // size)

    def body(best: tuple[Array, Array], i: Array) -> tuple[tuple[Array, Array], None]:
        index = i * size + jnp.arange(size)
        x = deviation * jax.vmap(lambda j: noise(keys, shape, 2 * j))(index)  # [size, B, ...]
        gumbel = jax.vmap(lambda j: _gumbel(keys, 2 * j + 1))(index)
        score = log_ratio(x.reshape(size * batch, *shape)).reshape(size, batch) + gumbel
        score = jnp.where(index[:, None] < proposals, score, -jnp.inf)
        first = jnp.argmax(score, 0)
        here, value = x[first, jnp.arange(batch)], score[first, jnp.arange(batch)]
        better = value > best[1]
        return (jnp.where(expand_dims_like(better, here), here, best[0]), jnp.where(better, value, best[1])), None

    start = jnp.zeros((batch, *shape)), jnp.full(batch, -jnp.inf)
    return lax.scan(body, start, jnp.arange(steps))[0][0]


def _gumbel(keys: Key, step: Array) -> Array:
    return jax.vmap(lambda key: jax.random.gumbel(jax.random.fold_in(key, step.astype(jnp.uint32))))(keys)
