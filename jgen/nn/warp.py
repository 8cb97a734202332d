"""Images resampled along an affine map each, by matrix products: what augmentation turns, scales and shifts them with.

FIR filters are small dense matrices, an axis at a time: their transposes, which gradients need, are products as fast as they
are, where a sum of shifted copies compiles to a loop that recomputes itself. The filter around the resampling is the sym6
wavelet's, as in StyleGAN2-ADA (Karras et al. 2020, arXiv:2006.06676, appendix B).
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jgen.types import Array

SYM6 = np.array(
    [0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633, 0.4910559419267466,
     0.787641141030194, 0.3379294217276218, -0.07263752278646252, -0.021060292512300564, 0.04472490177066578,
     0.0017677118642428036, -0.007800708325034148]
) / math.sqrt(2)  # fmt: skip


def reflected(weights: np.ndarray, index: np.ndarray, size: int) -> np.ndarray:
    """[rows, size]: row r adds up weights[r, k] of element index[r, k]; indices beyond the ends are reflected."""
    index = index % (2 * (size - 1))
    matrix = np.zeros((len(index), size))
    np.add.at(matrix, (np.arange(len(index))[:, None], np.minimum(index, 2 * (size - 1) - index)), weights)
    return matrix


def _doubling(size: int) -> np.ndarray:
    """[4 (size - 1), size]: one period of the reflected axis, upsampled by 2. Two images long: the filter is lopsided."""
    tap = np.arange(12)[None]
    twice = np.arange(4 * (size - 1))[:, None] + 5 - tap  # every other place holds a pixel; zeros lie between
    return reflected(np.where(twice % 2 == 0, 2 * SYM6[tap], 0), twice // 2, size)


def _halving(size: int) -> np.ndarray:
    """[size, 2 size + 10]: every second place, filtered; the ten more are what the filter reaches beyond the ends."""
    matrix = np.zeros((size, 2 * size + 10))
    for i in range(size):
        matrix[i, 2 * i : 2 * i + 12] = SYM6
    return matrix


def along(x: Array, rows: np.ndarray | Array, columns: np.ndarray | Array) -> Array:
    """Both axes of [B, H, W, C] times a matrix each: one for all, or one an image."""
    one = "ij" if rows.ndim == 2 else "bij"
    x = jnp.einsum(f"{one},bjwc->biwc", jnp.asarray(rows, x.dtype), x, precision="highest")
    return jnp.einsum(f"{one},bhjc->bhic", jnp.asarray(columns, x.dtype), x, precision="highest")


def corners_aligned(size: int, new_size: int) -> np.ndarray:
    """[new_size, size]: bilinear interpolation whose first and last pixels stay where they are."""
    at = np.linspace(0, size - 1, new_size)
    return np.maximum(1 - np.abs(at[:, None] - np.arange(size)[None]), 0)


def pooling(size: int, bins: int) -> np.ndarray:
    """[bins, size]: means over `bins` even shares of an axis, which overlap where they don't divide it (adaptive pooling)."""
    at, ends = np.arange(size)[None], np.arange(bins)[:, None]
    inside = (at >= ends * size // bins) & (at < -(-(ends + 1) * size // bins))
    return inside / inside.sum(1, keepdims=True)


def scaling(x: Array, y: Array) -> Array:
    """[3, 3]: scales by x and y, scalars, about the centre. Like the two below, a step of what `warp` takes."""
    return jnp.array([[x, 0, 0], [0, y, 0], [0, 0, 1]])


def rotation(angle: Array) -> Array:
    """[3, 3]: turns by so many radians, from the axis to the right towards the one that points down."""
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    return jnp.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def shift(by: Array) -> Array:
    """[3, 3]: moves by -by [2], so that the image it maps to moves right and down by so many pixels."""
    return jnp.array([[1, 0, -by[0]], [0, 1, -by[1]], [0, 0, 1]])


def composed(*steps: Array) -> Array:
    """[3, 3]: the last of the steps first."""
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), steps)


def warp(x: Array, inverse: Array) -> Array:
    """Every image [B, H, W, C] as its matrix [B, 3, 3] tells: from a place in the result to the one it shows, as (x, y, 1) in
    pixels right and down from the centre. Reflected at its edges once and zero further out."""
    height, width = x.shape[1:3]
    twice = along(x, _doubling(height), _doubling(width))
    # where the places of the grid of half pixels lie from the centre, five beyond either end
    down, across = ((jnp.arange(2 * n + 10, dtype=x.dtype) - (n + 4)) / 2 for n in (height, width))
    m = inverse[:, :, :, None, None]
    column, row = (m[:, i, 0] * across[None, None] + m[:, i, 1] * down[None, :, None] + m[:, i, 2] for i in (0, 1))
    return along(_bilinear(twice, 2 * row + height - 1, 2 * column + width - 1), _halving(height), _halving(width))


def _neighbours(place: Array, period: int) -> list[tuple[Array, Array]]:
    """The two whole places around each place on an axis of this period, with their weights."""
    low = jnp.floor(place)
    pairs = []
    for whole, weight in ((low, 1 - (place - low)), (low + 1, place - low)):
        inside = (whole >= -period // 2) & (whole < period + 2)  # the image, and its reflections on either side
        pairs.append((jnp.mod(whole, period).astype(jnp.int32), jnp.where(inside, weight, 0)))
    return pairs


def _bilinear(periodic: Array, row: Array, column: Array) -> Array:
    """Values [B, h, w, C] at the places row, column [B, h, w] of [B, H, W, C], whose axes repeat."""
    batch, height, width, channels = periodic.shape
    flat = periodic.reshape(batch, height * width, channels)
    take = jax.vmap(lambda image, index: image.at[index].get(mode="promise_in_bounds"))
    total = jnp.zeros((*row.shape, channels), periodic.dtype)
    for i, above in _neighbours(row, height):
        for j, left in _neighbours(column, width):
            total = total + take(flat, i * width + j) * (above * left)[..., None]
    return total
