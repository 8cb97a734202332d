"""Improved precision and recall, density and coverage, realism, authenticity: by distances to the k-th nearest neighbour.

Distances are made in square tiles, dealt out over the devices, so that memory is [tile, tile] and never [N, N]; those
within a set are made once for both of their rows.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.metrics.rows import check_rows
from jgen.types import Array

TILE = 2048


class Manifold(NamedTuple):
    """Results of comparing a real and a generated set; the last three are per image."""

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
    real_radii: np.ndarray
    """[N]: squared distance from a real image to its k-th nearest real neighbour."""


def manifold(
    real: np.ndarray, fake: np.ndarray, k: int = 3, *, tile: int = TILE, real_radii: np.ndarray | None = None
) -> Manifold:
    """Compares features real [N, D] and fake [M, D] by balls that reach to the k-th nearest neighbour.

    real_radii: squared radii [N] where they are known or changed (a 0 drops a ball, as pruning by realism does).
    Points on a ball's surface count as inside for precision and recall, and as outside for density and coverage, as
    in the authors' codes. Raises UserError for sets of at most k rows, and for rows that are not finite or do not fit.
    """
    check_rows("precision and recall", real=real, generated=fake)
    for name, rows in (("real", real), ("generated", fake)):
        if k < 1 or len(rows) <= k:
            raise UserError(f"k={k}: {len(rows)} {name} rows; k must be at least 1, and less than the rows there are")
    # A shift changes no distance, and small numbers lose less in |a|^2 + |b|^2 - 2 a.b.
    centre = np.mean(real, 0, keepdims=True)
    real, fake = np.asarray(real) - centre, np.asarray(fake) - centre
    real_radii = radii(real, k, tile) if real_radii is None else np.asarray(real_radii, real.dtype)
    rows, columns = _Tiles(fake, tile, radii(fake, k, tile)), _Tiles(real, tile, real_radii)
    found = _deal(_compare, rows, columns, ((i, j) for i in range(rows.count) for j in range(columns.count)))
    inside, balls = np.zeros(rows.size, bool), np.zeros(rows.size)
    covered, in_fake = np.zeros(columns.size, bool), np.zeros(columns.size, bool)
    for (i, j), (any_row, count, any_column, any_ball) in found:
        inside[rows.at(i)] |= any_row
        balls[rows.at(i)] += count
        covered[columns.at(j)] |= any_column
        in_fake[columns.at(j)] |= any_ball
    m, n = len(fake), len(real)
    return Manifold(
        precision=float(inside[:m].mean()),
        recall=float(in_fake[:n].mean()),
        density=float(balls[:m].mean() / k),
        coverage=float(covered[:n].mean()),
        fake_in_real=inside[:m],
        real_in_fake=in_fake[:n],
        real_radii=real_radii,
    )


def radii(x: np.ndarray, k: int, tile: int = TILE) -> np.ndarray:
    """Squared distance of every row of x [N, D] to its k-th nearest other row [N]."""
    tiles = _Tiles(np.asarray(x), tile)
    parts: list[list[np.ndarray]] = [[] for _ in range(tiles.count)]
    pairs = ((i, j) for i in range(tiles.count) for j in range(i, tiles.count))
    for (i, j), (by_row, by_column) in _deal(partial(_within, k=k), tiles, tiles, pairs):
        parts[i].append(by_row)
        if j > i:
            parts[j].append(by_column)
    best = np.concatenate([np.partition(np.concatenate(p), k - 1, axis=0)[k - 1] for p in parts])
    return best[: len(x)]


def nearest(x: np.ndarray, k: int, tile: int = TILE) -> np.ndarray:
    """Places of the k nearest other rows of every row of x [N, D], nearest first: int32 [N, k].

    Raises UserError unless there are more than k rows.
    """
    if not 1 <= k < len(x):
        raise UserError(f"neighbours={k}: must be at least 1, and less than the {len(x)} images of the set")
    tiles = _Tiles(np.asarray(x) - np.mean(x, 0, keepdims=True), tile)
    # Squared distances and places of the best so far, which each tile's own few join.
    best = np.full((tiles.size, k), np.inf, x.dtype), np.zeros((tiles.size, k), np.int32)
    pairs = ((i, j) for i in range(tiles.count) for j in range(i, tiles.count))
    for (i, j), (by_row, by_column) in _deal(partial(_nearest_within, k=min(k, tiles.tile)), tiles, tiles, pairs):
        _join(best, tiles.at(i), by_row, j * tiles.tile)
        if j > i:
            _join(best, tiles.at(j), by_column, i * tiles.tile)
    return best[1][: len(x)]


def nearest_in(real: np.ndarray, fake: np.ndarray, k: int, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """(squared distances, places) [M, k] of the k rows of real [N, D] that are nearest to each row of fake [M, D].

    The nearest comes first. Raises UserError unless there are k rows.
    """
    check_rows("nearest images", real=real, generated=fake)
    if not 1 <= k <= len(real):
        raise UserError(f"neighbours={k}: must be from 1 to the {len(real)} images of the set")
    centre = np.mean(real, 0, keepdims=True)
    rows, columns = _Tiles(np.asarray(fake) - centre, tile), _Tiles(np.asarray(real) - centre, tile)
    best = np.full((rows.size, k), np.inf, fake.dtype), np.zeros((rows.size, k), np.int32)
    pairs = ((i, j) for i in range(rows.count) for j in range(columns.count))
    for (i, j), found in _deal(partial(_nearest_of, k=min(k, columns.tile)), rows, columns, pairs):
        _join(best, rows.at(i), found, j * columns.tile)
    return best[0][: len(fake)], best[1][: len(fake)]


def authenticity(real: np.ndarray, fake: np.ndarray, tile: int = TILE) -> float:
    """Share of the rows of fake [M, D] that are no near copies of rows of real [N, D].

    A row is a near copy where the real row nearest to it has no other real one as near (Alaa et al. 2022, arXiv:2102.08921, by
    the nearest neighbour itself, as in Stein et al. 2023, arXiv:2306.04675). Raises UserError for fewer than 2 real rows.
    """
    distances, places = nearest_in(real, fake, 1, tile)
    centre = np.mean(real, 0, keepdims=True)
    return float(np.mean(distances[:, 0] > radii(np.asarray(real) - centre, 1, tile)[places[:, 0]]))


def _join(best: tuple[np.ndarray, np.ndarray], rows: slice, found: tuple[np.ndarray, np.ndarray], first: int) -> None:
    """Keeps the best of some rows and of what a tile found, whose places count from `first` on."""
    distances = np.concatenate([best[0][rows], found[0]], 1)
    places = np.concatenate([best[1][rows], found[1] + first], 1)
    order = np.argsort(distances, 1, kind="stable")[:, : best[0].shape[1]]
    best[0][rows], best[1][rows] = np.take_along_axis(distances, order, 1), np.take_along_axis(places, order, 1)


def realism(real: np.ndarray, fake: np.ndarray, real_radii: np.ndarray, tile: int = TILE) -> tuple[np.ndarray, np.ndarray]:
    """(realism [M], index of the nearest real image [M]) of generated images, given the real ones' squared radii.

    Realism is the largest squared radius over squared distance, as the authors' code has it (the paper: their roots).
    """
    centre = np.mean(real, 0, keepdims=True)
    rows, columns = _Tiles(np.asarray(fake) - centre, tile), _Tiles(np.asarray(real) - centre, tile, real_radii)
    best, nearest = np.zeros(rows.size), np.zeros(rows.size, int)
    distance = np.full(rows.size, np.inf)
    pairs = ((i, j) for i in range(rows.count) for j in range(columns.count))
    for (i, j), (ratio, least, index) in _deal(_nearest, rows, columns, pairs):
        at = rows.at(i)
        best[at] = np.maximum(best[at], ratio)
        nearest[at] = np.where(least < distance[at], index + j * columns.tile, nearest[at])
        distance[at] = np.minimum(distance[at], least)
    return best[: len(fake)], nearest[: len(fake)]


class _Tiles:
    """Rows in blocks of one size, the last filled up with rows that are infinitely far from everything."""

    def __init__(self, x: np.ndarray, tile: int, balls: np.ndarray | None = None):
        self.tile = min(tile, len(x))
        self.count = -(-len(x) // self.tile)
        self.size, more = self.count * self.tile, self.count * self.tile - len(x)
        self.blocks = np.pad(x, ((0, more), (0, 0))).reshape(self.count, self.tile, -1)
        self.squares = np.pad(np.square(x).sum(1), (0, more), constant_values=np.inf).reshape(self.count, self.tile)
        balls = np.zeros(len(x), x.dtype) if balls is None else balls.astype(x.dtype)
        self.balls = np.pad(balls, (0, more), constant_values=-1).reshape(self.count, self.tile)

    def at(self, i: int) -> slice:
        return slice(i * self.tile, (i + 1) * self.tile)


def _deal(run: Callable[..., Any], rows: _Tiles, columns: _Tiles, pairs: Iterator[tuple[int, int]]) -> Iterator[Any]:
    """(pair, run's results on it) for every pair of blocks, by turns on the devices of this process, a few ahead."""
    devices, waiting = jax.local_devices(), []
    kept: dict[Any, Any] = {}

    def block(side: _Tiles, i: int, device: Any) -> Any:
        key = (id(side), i, device)
        if key not in kept:
            kept[key] = jax.device_put((side.blocks[i], side.squares[i], side.balls[i]), device)
        return kept[key]

    for number, (i, j) in enumerate(pairs):
        device = devices[number % len(devices)]
        waiting.append(((i, j), run(block(rows, i, device), block(columns, j, device), i == j)))
        if len(waiting) > 2 * len(devices):
            pair, found = waiting.pop(0)
            yield pair, jax.device_get(found)
    for pair, found in waiting:
        yield pair, jax.device_get(found)


Block = tuple[Array, Array, Array]
"""(rows [T, D], their squared norms [T], the squared radii of their balls [T])."""


def _distances(a: Block, b: Block) -> Array:
    """Squared distances [T of a, T of b]."""
    dots = lax.optimization_barrier(jnp.matmul(a[0], b[0].T, precision=lax.Precision.HIGHEST))
    return jnp.maximum(a[1][:, None] + b[1][None] - 2 * dots, 0)


def _to_others(a: Block, b: Block, same: Array) -> Array:
    """Squared distances, infinite from a row to itself where both blocks are the same."""
    d = _distances(a, b)
    itself = (jnp.arange(len(d))[:, None] == jnp.arange(d.shape[1])[None]) & same
    return lax.optimization_barrier(jnp.where(itself, jnp.inf, d))


@partial(jax.jit, static_argnames="k")
def _nearest_within(a: Block, b: Block, same: Array, k: int) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """(distances, places) [T, k] of the k nearest of b to every row of a, and of a to every row of b."""

    d = _to_others(a, b, same)
    return _smallest(d, k), _smallest(d.T, k)


@partial(jax.jit, static_argnames="k")
def _nearest_of(a: Block, b: Block, same: Array, k: int) -> tuple[Array, Array]:
    """(distances, places) [T, k] of the k nearest of b to every row of a."""
    return _smallest(_distances(a, b), k)


def _smallest(d: Array, k: int) -> tuple[Array, Array]:
    values, places = lax.top_k(-d, k)
    return -values, places


@partial(jax.jit, static_argnames="k")
def _within(a: Block, b: Block, same: Array, k: int) -> tuple[Array, Array]:
    """A few distances of every row, and of every column [few, T], with the k smallest among them; none to itself."""
    d = _to_others(a, b, same)
    return _few(_few(d, k, 1), k, 1).T, _few(_few(d, k, 0), k, 0)


def _few(x: Array, k: int, axis: int, groups: int = 16) -> Array:
    """The k smallest of every group of numbers along an axis: far fewer, with the k smallest of all among them.

    A group is made of numbers far apart, so that whole slices are compared at once: each passes through k registers.
    """
    size = -(-x.shape[axis] // groups)
    if size <= 2 * k:
        return x
    if more := size * groups - x.shape[axis]:
        x = jnp.pad(x, [(0, more if i == axis else 0) for i in range(2)], constant_values=jnp.inf)
    registers: list[Array] = []
    for g in range(groups):
        value, passed = lax.slice_in_dim(x, g * size, (g + 1) * size, axis=axis), []
        for register in registers:
            passed.append(jnp.minimum(register, value))
            value = jnp.maximum(register, value)
        registers = [*passed, value][:k]
    # Without the barrier XLA would make the registers again for every slice that reads them.
    return lax.optimization_barrier(jnp.concatenate(registers, axis))


@jax.jit
def _compare(a: Block, b: Block, same: Array) -> tuple[Array, Array, Array, Array]:
    d = _distances(a, b)
    inside = d < b[2][None]
    balls = jnp.sum(inside.astype(jnp.float32), 1)
    return jnp.any(d <= b[2][None], 1), balls, jnp.any(inside, 0), jnp.any(d <= a[2][:, None], 0)


@jax.jit
def _nearest(a: Block, b: Block, same: Array) -> tuple[Array, Array, Array]:
    d = _distances(a, b)
    return jnp.max(b[2][None] / (d + 1e-5), 1), jnp.min(d, 1), jnp.argmin(d, 1)
