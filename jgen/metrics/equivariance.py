"""How well a generator's images follow a shift or a turn of its input, in decibels: EQ-T, EQ-T_frac and EQ-R.

Karras et al. 2021 (arXiv:2106.12423), section 2 and appendix E. An image made from a transformed input is compared with the
transformed image, where both are known: the signal-to-noise ratio of values in [-1, 1] over all pixels, channels and images.
Images are [B, H, W, C]; shifts (x, y) are in widths and heights of the image, right and down; angles are in radians. Masks
are [H, W], 1 where a pixel is known.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.warp import along
from jgen.types import Array, Key

NAMES = {
    "eqt": "EQ-T: shifts by whole pixels, in dB",
    "eqt_frac": "EQ-T_frac: shifts by any length, in dB",
    "eqr": "EQ-R: turns, in dB",
}
REACH = 3
"""Lobes of the Lanczos windows."""


def rotation_matrix(angle: Array | float) -> Array:
    """[3, 3]: x and y (downwards) turned by an angle, from y towards x."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    zero, one = jnp.zeros_like(cos), jnp.ones_like(cos)
    return jnp.stack([jnp.stack(row) for row in ((cos, sin, zero), (-sin, cos, zero), (zero, zero, one))])


def _both(x: Array, by: Array, matrix: Callable[[int, Array], tuple[Array, Array]]) -> tuple[Array, Array]:
    """x shifted along both axes by matrices of (pixels, shift in pixels) -> (matrix, which places are known)."""
    rows, known_rows = matrix(x.shape[1], by[1] * x.shape[1])
    columns, known_columns = matrix(x.shape[2], by[0] * x.shape[2])
    return along(x, rows, columns), (known_rows[:, None] & known_columns[None]).astype(x.dtype)


def shift_whole(x: Array, by: Array) -> tuple[Array, Array]:
    """(x moved by a shift [2] rounded to whole pixels, mask of the pixels that come from within)."""

    def matrix(size: int, by: Array) -> tuple[Array, Array]:
        apart = jnp.arange(size)[:, None] - jnp.arange(size)[None] - jnp.round(by).astype(jnp.int32)
        return (apart == 0).astype(x.dtype), jnp.any(apart == 0, 1)

    return _both(x, by, matrix)


def shift_fraction(x: Array, by: Array) -> tuple[Array, Array]:
    """(x moved by a shift [2] with a Lanczos filter of 6 taps, mask of the pixels whose taps are all within)."""

    def matrix(size: int, by: Array) -> tuple[Array, Array]:
        whole = jnp.floor(by)
        taps = jnp.arange(2 * REACH) - (REACH - 1) - (by - whole)
        values = jnp.sinc(taps) * jnp.sinc(taps / REACH)
        values = values / jnp.sum(values)
        place = jnp.arange(size)[:, None] - jnp.arange(size)[None] - whole.astype(jnp.int32) + REACH - 1
        inside = (place >= 0) & (place < 2 * REACH)
        known = jnp.sum(inside, 1) == 2 * REACH
        return jnp.where(inside, values[jnp.clip(place, 0, 2 * REACH - 1)], 0).astype(x.dtype), known

    return _both(x, by, matrix)


def _lanczos(x: np.ndarray) -> np.ndarray:
    x = np.abs(x) / REACH
    return np.where(x < 1, np.sinc(x), 0.0)


def oriented_filter(angle: float, up: int, largest: int = 2 * REACH, room: int = 64) -> np.ndarray:
    """[2 largest up - 1] squared: what a turned image may hold, by the grid it comes from and by the one that it goes to.

    Both grids' sinc filters are convolved, on `room` pixels either way, and so are their windows; the product of the two is cut
    to `largest` pixels either way. Each phase of the `up` x `up` adds up to the same.
    """
    line = (np.arange(2 * room * up - 1) + 1) / up - room
    y, x = np.meshgrid(*[np.roll(line, 1 - room * up)] * 2, indexing="ij")
    cos, sin = np.cos(angle), np.sin(angle)
    turned_x, turned_y = cos * x + sin * y, cos * y - sin * x

    def convolved(of: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        one, other = of(x) * of(y), of(turned_x) * of(turned_y)
        return np.fft.ifftn(np.fft.fftn(one) * np.fft.fftn(other)).real

    f = np.roll(convolved(np.sinc) * convolved(_lanczos), [room * up - 1] * 2, (0, 1))
    cut = (room - largest) * up
    f = np.pad(f[cut:-cut, cut:-cut], ((0, 1), (0, 1))).reshape(2 * largest, up, 2 * largest, up)
    f = f / f.sum((0, 2), keepdims=True) / up**2
    return f.reshape(2 * largest * up, 2 * largest * up)[:-1, :-1]


def _convolved(x: Array, f: Array, up: int) -> Array:
    """x with up - 1 zeros after each pixel, convolved with f [n, n] -> [B, H up + n - 1, W up + n - 1, C], by Fourier."""
    sides = [size * up + len(f) - 1 for size in x.shape[1:3]]
    spread = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, up - 1, up - 1), (0, up - 1, up - 1), (0, 0, 0)])
    product = jnp.fft.rfft2(spread, sides, (1, 2)) * jnp.fft.rfft2(f, sides)[None, :, :, None]
    return jnp.fft.irfft2(product, sides, (1, 2))


@partial(jax.jit, static_argnames="up")
def _turned(x: Array, f: Array, angle: Array, up: int = 4) -> tuple[Array, Array]:
    (height, width), rim = x.shape[1:3], len(f) // 2
    high = jnp.pad(_convolved(x, f * up**2, up), ((0, 0), (up // 2, 0), (up // 2, 0), (0, 0)))
    high = high[:, : height * up + 2 * rim, : width * up + 2 * rim]
    right = ((2 * jnp.arange(width) + 1) / width - 1)[None]
    below = ((2 * jnp.arange(height) + 1) / height - 1)[:, None]
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    column = (cos * right - sin * below + 1) * (width * up / 2) + rim
    row = (sin * right + cos * below + 1) * (height * up / 2) + rim
    inside = jnp.zeros(high.shape[1:3], x.dtype).at[2 * rim + 1 : -2 * rim - 1, 2 * rim + 1 : -2 * rim - 1].set(1)
    mask = _at(inside[None, :, :, None], jnp.round(row), jnp.round(column))[0, :, :, 0]
    top, left = jnp.floor(row), jnp.floor(column)
    total = jnp.zeros_like(x)
    for i in (0, 1):
        for j in (0, 1):
            weight = (1 - jnp.abs(row - top - i)) * (1 - jnp.abs(column - left - j))
            total = total + _at(high, top + i, left + j) * weight[None, :, :, None].astype(x.dtype)
    return total, mask


def _at(x: Array, row: Array, column: Array) -> Array:
    """Pixels of x [B, H, W, C] at whole places row, column [h, w]; zero outside."""
    known = (row >= 0) & (row < x.shape[1]) & (column >= 0) & (column < x.shape[2])
    index = jnp.clip(row, 0, x.shape[1] - 1).astype(jnp.int32), jnp.clip(column, 0, x.shape[2] - 1).astype(jnp.int32)
    return jnp.where(known[None, :, :, None], x[:, index[0], index[1]], 0)


def turn(x: Array, angle: float) -> tuple[Array, Array]:
    """(x turned about its centre, mask of the pixels far from what lies outside)."""
    return _turned(x, jnp.asarray(oriented_filter(angle, 4), x.dtype), jnp.asarray(angle, x.dtype))


def filter_as_turned(x: Array, angle: float) -> tuple[Array, Array]:
    """(x with the frequencies that a turn by this angle would leave, unturned; mask of the pixels far from the edges)."""
    return _filtered(x, jnp.asarray(oriented_filter(-angle, 1), x.dtype))


@jax.jit
def _filtered(x: Array, f: Array) -> tuple[Array, Array]:
    rim = len(f) // 2
    y = _convolved(x, f, 1)[:, rim : rim + x.shape[1], rim : rim + x.shape[2]]
    return y, jnp.zeros(x.shape[1:3], x.dtype).at[rim:-rim, rim:-rim].set(1)


class Draws(NamedTuple):
    """One transform of each kind, for a whole batch."""

    whole: Array
    """[2], uniform in 0..1: the shift of EQ-T, before it is scaled and rounded to pixels."""
    fraction: Array
    """[2], uniform: that of EQ-T_frac."""
    angle: Array
    """[], uniform: that of EQ-R."""


class Equivariance(NamedTuple):
    """Decibels; infinite where images are equal, None for turns that were left out."""

    eq_t: float
    eq_t_frac: float
    eq_r: float | None


Synthesize = Callable[[Array], Array]
"""transform [3, 3] of the input -> the images [B, H, W, C] of latents that stay the same."""


def squared_errors(
    synthesize: Synthesize, draws: Draws, shift_max: float = 0.125, angle_max: float = 1.0, turns: bool = True
) -> np.ndarray:
    """[3, 2]: the sum of squared errors, and the number of values, of a batch for EQ-T, EQ-T_frac and EQ-R.

    shift_max: of the image's side. angle_max: 1 is half a turn either way. turns: without, there are no rows of EQ-R.
    """
    plain = synthesize(jnp.eye(3))
    whole, fraction = ((2 * jnp.asarray(u) - 1) * shift_max for u in draws[:2])
    sides = jnp.asarray([plain.shape[2], plain.shape[1]])
    whole = jnp.round(whole * sides) / sides
    angle = float((2 * draws.angle - 1) * np.pi * angle_max)
    found = []
    for by, move in ((whole, shift_whole), (fraction, shift_fraction)):
        want, mask = move(plain, by)
        found.append((want, synthesize(jnp.eye(3).at[:2, 2].set(-by)), mask))
    if turns:
        want, mask = turn(plain, angle)
        made, known = filter_as_turned(synthesize(rotation_matrix(-angle)), angle)
        found.append((want, made, mask * known))
    rows = [(jnp.sum(jnp.square(a - b) * m[None, :, :, None]), jnp.sum(m) * a.shape[0] * a.shape[3]) for a, b, m in found]
    return np.asarray(rows, np.float64)


def decibels(sums: Iterable[np.ndarray]) -> Equivariance:
    """The metrics of `squared_errors` of all batches. Raises UserError where no pixel was known: images too small."""
    total = np.sum(list(sums), 0)
    if not total[:, 1].all():
        raise UserError("equivariance: no pixel has a known counterpart; images must be of 32 pixels and more")
    with np.errstate(divide="ignore"):
        values = (20 * np.log10(2) - 10 * np.log10(total[:, 0] / total[:, 1])).tolist()
    return Equivariance(*values, *[None] * (3 - len(values)))


def draw(key: Key) -> Draws:
    """The transforms of one batch."""
    keys = jax.random.split(key, 3)
    return Draws(*(jax.random.uniform(k, shape) for k, shape in zip(keys, ((2,), (2,), ()))))
