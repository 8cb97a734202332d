"""Improved precision and recall, density and coverage, realism: by distances to the k-th nearest neighbour.

Distances are made block by block, so that memory is [block, N] and never [N, N].
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.types import Array


class Manifold(NamedTuple):
    """What a comparison of a real and a generated set gives; the last five are per image."""

    precision: float
    """Share of generated images inside the real set's balls (Kynkäänniemi et al. 2019, arXiv:1904.06991)."""
    recall: float
    """Share of real images inside the generated set's balls."""
    density: float
    """Real balls that a generated image lies in, over k; may exceed 1 (Naeem et al. 2020, arXiv:2002.09797)."""
    coverage: float
    """Share of real images whose ball holds a generated image."""
    fake_in_real: np.ndarray
    """bool [M]."""
    real_in_fake: np.ndarray
    """bool [N]."""
    nearest_real: np.ndarray
    """int [M]: index of the nearest real image."""
    realism: np.ndarray
    """[M]: the largest squared radius over squared distance, as the authors' code has it (the paper: their roots)."""
    real_radii: np.ndarray
    """[N]: squared distance from a real image to its k-th nearest real neighbour."""


def manifold(
    real: np.ndarray, fake: np.ndarray, k: int = 3, *, block: int = 1024, real_radii: np.ndarray | None = None
) -> Manifold:
    """Compares features real [N, D] and fake [M, D] by balls that reach to the k-th nearest neighbour.

    real_radii: squared radii [N] where they are known or changed (a 0 drops a ball, as pruning by realism does).
    Points on a ball's surface count as inside for precision and recall, and as outside for density and coverage, as
    in the authors' codes. Raises UserError for sets of at most k rows.
    """
    for name, rows in (("real", real), ("generated", fake)):
        if k < 1 or len(rows) <= k:
            raise UserError(f"k={k}: {len(rows)} {name} rows; k must be at least 1, and less than the rows there are")
    # A shift changes no distance, and small numbers lose less in |a|^2 + |b|^2 - 2 a.b.
    centre = np.mean(real, 0, keepdims=True)
    real, fake = np.asarray(real) - centre, np.asarray(fake) - centre
    real_radii = radii(real, k, block) if real_radii is None else np.asarray(real_radii, real.dtype)
    found = _compare(_blocks(fake, block), _blocks(radii(fake, k, block), block), len(fake), real, real_radii)
    rows, covered, in_fake = jax.tree.map(np.asarray, found)
    inside, balls, nearest, realism = (np.reshape(x, -1)[: len(fake)] for x in rows)
    return Manifold(
        precision=float(inside.mean()),
        recall=float(in_fake.mean()),
        density=float(balls.mean(dtype=np.float64) / k),
        coverage=float(covered.mean()),
        fake_in_real=inside,
        real_in_fake=in_fake,
        nearest_real=nearest,
        realism=realism,
        real_radii=real_radii,
    )


def radii(x: np.ndarray, k: int, block: int = 1024) -> np.ndarray:
    """Squared distance of every row of x [N, D] to its k-th nearest other row [N]."""
    return np.asarray(_radii(_blocks(x, block), jnp.asarray(x), k)).reshape(-1)[: len(x)]


def _blocks(x: np.ndarray, block: int) -> np.ndarray:
    """[N, ...] -> [blocks, block, ...], the last one filled with zeros."""
    size = min(block, len(x))
    count = -(-len(x) // size)
    padded = np.pad(x, [(0, count * size - len(x))] + [(0, 0)] * (x.ndim - 1))
    return padded.reshape(count, size, *x.shape[1:])


def _distances(a: Array, b: Array, b_squares: Array) -> Array:
    """Squared distances [rows of a, rows of b]."""
    dots = jnp.matmul(a, b.T, precision=lax.Precision.HIGHEST)
    return jnp.maximum(jnp.sum(a * a, 1)[:, None] + b_squares[None] - 2 * dots, 0)


@partial(jax.jit, static_argnums=2)
def _radii(blocks: Array, x: Array, k: int) -> Array:
    squares, size = jnp.sum(x * x, 1), blocks.shape[1]

    def one(block: tuple[Array, Array]) -> Array:
        number, rows = block
        itself = jnp.arange(len(x))[None] == (number * size + jnp.arange(size))[:, None]
        return _kth_smallest(jnp.where(itself, jnp.inf, _distances(rows, x, squares)), k)

    return lax.map(one, (jnp.arange(len(blocks)), blocks))


def _kth_smallest(x: Array, k: int) -> Array:
    """The k-th smallest of every row: k - 1 times, the first smallest is crossed out."""
    columns = jnp.arange(x.shape[1])[None]
    for _ in range(k - 1):
        x = jnp.where(columns == jnp.argmin(x, 1)[:, None], jnp.inf, x)
    return jnp.min(x, 1)


@jax.jit
def _compare(blocks: Array, fake_radii: Array, count: Array, real: Array, real_radii: Array):
    squares, size = jnp.sum(real * real, 1), blocks.shape[1]

    def one(carry: tuple[Array, Array], block: tuple[Array, Array, Array]):
        covered, in_fake = carry
        number, rows, balls = block
        there = (number * size + jnp.arange(size) < count)[:, None]
        d = jnp.where(there, _distances(rows, real, squares), jnp.inf)
        inside = d < real_radii[None]
        covered |= jnp.any(inside, 0)
        in_fake |= jnp.any(d <= balls[:, None], 0)
        realism = jnp.max(real_radii[None] / (d + 1e-5), 1)
        return (covered, in_fake), (jnp.any(d <= real_radii[None], 1), jnp.sum(inside, 1), jnp.argmin(d, 1), realism)

    nothing = jnp.zeros(len(real), bool)
    (covered, in_fake), rows = lax.scan(one, (nothing, nothing), (jnp.arange(len(blocks)), blocks, fake_radii))
    return rows, covered, in_fake
