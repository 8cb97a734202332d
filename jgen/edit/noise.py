"""Kinds of noise for a generator's noise inputs: each key -> plane [side, side, 1] of mean 0 and variance about 1.

A network is trained with Gaussian planes; others show what it does with structure (Karras et al. 2019, section 3.2). Perlin
noise is Perlin's of 2002; simplex noise is the opensimplex package's.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from opensimplex import OpenSimplex

from jgen.errors import UserError
from jgen.types import Array, Key

Plane = Callable[[Key, int], Array]
"""(key, side) -> [side, side, 1]."""


def gaussian(key: Key, side: int) -> Array:
    """Plain normal noise, as in training."""
    return jax.random.normal(key, (side, side, 1))


def uniform(key: Key, side: int) -> Array:
    """In [-3^0.5, 3^0.5]."""
    return jax.random.uniform(key, (side, side, 1), minval=-(3**0.5), maxval=3**0.5)


def salt_and_pepper(key: Key, side: int, share: float = 0.1) -> Array:
    """0, but for a share of the pixels that is -share^-0.5 or share^-0.5. Raises UserError unless 0 < share <= 1."""
    if not 0 < share <= 1:
        raise UserError(f"share={share}: must be above 0, and at most 1")
    where, sign = jax.random.split(key)
    grains = jax.random.rademacher(sign, (side, side, 1), jnp.float32) * share**-0.5
    return jnp.where(jax.random.bernoulli(where, share, (side, side, 1)), grains, 0.0)


def perlin(key: Key, side: int, cells: int = 4) -> Array:
    """Gradient noise with `cells` lattice cells along each side, of the variance of its pixels."""
    if cells < 1:
        raise UserError(f"cells={cells}: must be at least 1")
    angles = jax.random.uniform(key, (cells + 1, cells + 1), maxval=2 * jnp.pi)
    slopes = jnp.stack([jnp.cos(angles), jnp.sin(angles)], -1)
    at = (np.arange(side) + 0.5) * cells / side
    low = np.floor(at).astype(int)
    part = jnp.asarray(at - low, jnp.float32)
    fade = part**3 * (part * (6 * part - 15) + 10)

    def corner(i: int, j: int) -> Array:
        """The plane of the corner's gradient, at every pixel."""
        slope = slopes[low + i][:, low + j]
        return slope[..., 0] * (part - i)[:, None] + slope[..., 1] * (part - j)[None]

    rows, columns = fade[:, None], fade[None]
    top = corner(0, 0) + columns * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + columns * (corner(1, 1) - corner(1, 0))
    return standardized((top + rows * (bottom - top))[..., None])


def octaves(key: Key, side: int, count: int = 4, first: int = 2) -> Array:
    """Perlin noise at `count` scales: each with twice the cells and half the amplitude of the one before."""
    if count < 1:
        raise UserError(f"count={count}: must be at least 1")
    keys = jax.random.split(key, count)
    return standardized(jnp.sum(jnp.stack([perlin(k, side, first << i) * 0.5**i for i, k in enumerate(keys)]), 0))


def simplex(key: Key, side: int, cells: float = 4.0) -> Array:
    """OpenSimplex noise of the opensimplex package, with about `cells` cells along each side; computed on the host."""
    at = (np.arange(side) + 0.5) * cells / side

    def on_host(bits: np.ndarray) -> np.ndarray:
        return OpenSimplex(int(bits)).noise2array(at, at).astype(np.float32)

    shape = jax.ShapeDtypeStruct((side, side), jnp.float32)
    plane = jax.pure_callback(on_host, shape, jax.random.bits(key), vmap_method="sequential")
    return standardized(plane[..., None])


def standardized(plane: Array) -> Array:
    """With mean 0 and variance 1 over its pixels."""
    return (plane - jnp.mean(plane)) / jnp.maximum(jnp.std(plane), 1e-6)


def planes(keys: Key, sides: dict[str, int], kind: Plane = gaussian) -> dict[str, Array]:
    """{layer: [B, side, side, 1]} for the layers and sides of a network; image i's from keys[i] alone."""

    def one(key: Key) -> dict[str, Array]:
        return {name: kind(jax.random.fold_in(key, i), side) for i, (name, side) in enumerate(sides.items())}

    return jax.vmap(one)(keys)
