"""The pool of latent codes that e4e's discriminator sees (Tov et al. 2021, arXiv:2102.02766; after Shrivastava et al. 2017)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.types import Array


class LatentPool(NamedTuple):
    """Codes that were made before."""

    codes: Array
    """[size, ...]."""
    count: Array
    """How many there are yet, int32."""


def empty_pool(size: int, shape: tuple[int, ...]) -> LatentPool:
    """A pool for so many codes of a shape. Raises UserError for none."""
    if size < 1:
        raise UserError(f"pool={size}: must hold at least 1 code")
    return LatentPool(jnp.zeros((size, *shape)), jnp.int32(0))


def exchange(pool: LatentPool, codes: Array, uniforms: Array, indices: Array) -> tuple[LatentPool, Array]:
    """(the pool, codes [B, ...] to show): each is kept while there is room; then half of them take the place of older ones.

    uniforms [B] in [0, 1): above 0.5 code i takes the place indices[i], and the one that was there is shown. Draws of codes
    that still find room are not used.
    """

    def one(pool: LatentPool, row: tuple[Array, Array, Array]) -> tuple[LatentPool, Array]:
        code, uniform, index = row
        room = pool.count < len(pool.codes)
        place = jnp.where(room, pool.count, index)
        old = pool.codes[place]
        swapped = ~room & (uniform > 0.5)
        kept = pool.codes.at[place].set(jnp.where(room | swapped, code, old))
        return LatentPool(kept, pool.count + room), jnp.where(swapped, old, code)

    return jax.lax.scan(one, pool, (codes, uniforms, indices))
