"""JPEG's front end: colour, 8x8 blocks' DCT, quantisation tables by quality, zig-zag order, rounding; and all of it back.

ITU-T T.81 (annexes A and K), JFIF 1.02 for the colours, and the tables by quality of the Independent JPEG Group's library.
"""

import math
from functools import cache

import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.types import Array

BLOCK = 8
LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80,
    62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98,
    112, 100, 103, 99,
)  # fmt: skip
"""Annex K, table 1, row by row; the first axis is the vertical frequency."""
CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99,
    99, *[99] * 32,
)  # fmt: skip
"""Annex K, table 2."""
TO_YCBCR = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
"""JFIF: rows Y, Cb, Cr of red, green, blue. Cb and Cr get 128 besides."""
OFFSET = np.array([0.0, 128.0, 128.0])


def ycbcr(rgb: Array) -> Array:
    """Pixels 0..255 [..., 3] -> Y, Cb, Cr, not rounded."""
    colours = jnp.matmul(rgb, jnp.asarray(TO_YCBCR.T, rgb.dtype), precision="highest")
    return colours + jnp.asarray(OFFSET, rgb.dtype).reshape((1,) * (rgb.ndim - 1) + (3,))


def rgb(colours: Array) -> Array:
    """The inverse of `ycbcr`."""
    offset = jnp.asarray(OFFSET, colours.dtype).reshape((1,) * (colours.ndim - 1) + (3,))
    return jnp.matmul(colours - offset, jnp.asarray(np.linalg.inv(TO_YCBCR).T, colours.dtype), precision="highest")


@cache
def dct_matrix(size: int = BLOCK) -> np.ndarray:
    """The orthonormal DCT-II [frequency, pixel]."""
    k, n = np.arange(size)[:, None], np.arange(size)[None]
    matrix = np.sqrt(2 / size) * np.cos(np.pi * (n + 0.5) * k / size)
    matrix[0] /= np.sqrt(2)
    return matrix


@cache
def zigzag(size: int = BLOCK) -> np.ndarray:
    """int [size^2]: the row-major index of the k-th coefficient of the zig-zag: 0, 1, 8, 16, 9, 2, ..."""
    cells = [(r, c) for r in range(size) for c in range(size)]
    cells.sort(key=lambda cell: (sum(cell), cell[0] if sum(cell) % 2 else cell[1]))
    return np.array([r * size + c for r, c in cells])


def tables(quality: int, channels: int = 3, size: int = BLOCK) -> np.ndarray:
    """int [channels, size, size]: the divisors of luma and chroma at a quality from 1 to 100. Raises UserError for others.

    Blocks of other sizes than JPEG's 8 take the divisors of the same frequencies, between those of the tables along a line.
    """
    if not 1 <= quality <= 100:
        raise UserError(f"quality={quality}: must be from 1 to 100")
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    luma, chroma = (np.clip((np.array(t) * scale + 50) // 100, 1, 255).reshape(8, 8) for t in (LUMA, CHROMA))
    if size != BLOCK:
        luma, chroma = _resampled(luma, size), _resampled(chroma, size)
    return np.stack([luma, chroma, chroma][:channels])


def _resampled(table: np.ndarray, size: int) -> np.ndarray:
    """int [size, size]: a table [8, 8] at the frequencies of larger or smaller blocks, the last divisors beyond its own."""
    at = np.arange(size) * BLOCK / size
    rows = np.stack([np.interp(at, np.arange(BLOCK), row) for row in table])
    return np.rint([np.interp(at, np.arange(BLOCK), column) for column in rows.T]).astype(int).T


def to_blocks(x: Array, size: int = BLOCK) -> Array:
    """[..., H, W, C] -> [..., H/8, W/8, C, 8, 8]. Raises UserError for sides that 8 does not divide."""
    *lead, height, width, c = x.shape
    if height % size or width % size:
        raise UserError(f"image of {height}x{width}: sides must be divisible by {size}")
    x = x.reshape(*lead, height // size, size, width // size, size, c)
    return jnp.einsum("...rpkqc->...rkcpq", x)


def from_blocks(blocks: Array) -> Array:
    """The inverse of `to_blocks`."""
    *lead, rows, columns, c, size, _ = blocks.shape
    return jnp.einsum("...rkcpq->...rpkqc", blocks).reshape(*lead, rows * size, columns * size, c)


def dct(blocks: Array) -> Array:
    """The orthonormal 2-D DCT-II of blocks [..., 8, 8]: one product with a 64x64 matrix."""
    return _product(blocks, np.kron(dct_matrix(blocks.shape[-1]), dct_matrix(blocks.shape[-1])).T)


def inverse_dct(coefficients: Array) -> Array:
    """The inverse of `dct`."""
    size = coefficients.shape[-1]
    return _product(coefficients, np.kron(dct_matrix(size), dct_matrix(size)))


def _product(x: Array, matrix: np.ndarray) -> Array:
    flat = x.reshape(*x.shape[:-2], -1)
    return jnp.matmul(flat, jnp.asarray(matrix, x.dtype), precision="highest").reshape(x.shape)


def _wide(table: np.ndarray, x: Array) -> Array:
    return jnp.asarray(table, x.dtype).reshape((1,) * (x.ndim - 3) + table.shape)


def quantized(pixels: Array, quality: int, size: int = BLOCK) -> Array:
    """Pixels 0..255 [..., H, W, C], of 1 or 3 channels -> int32 [..., H/8, W/8, C, 64] in zig-zag order; no subsampling.

    Halves are rounded to even. size: the side of the blocks, 8 in JPEG.
    """
    colours = ycbcr(pixels) if pixels.shape[-1] == 3 else pixels
    coefficients = dct(to_blocks(colours - 128.0, size))
    levels = jnp.round(coefficients / _wide(tables(quality, pixels.shape[-1], size), coefficients)).astype(jnp.int32)
    return levels.reshape(*levels.shape[:-2], -1)[..., zigzag(size)]


def pixels_of(levels: Array, quality: int) -> Array:
    """The pixels [..., H, W, C] of quantised coefficients, float32 and not clipped."""
    size = math.isqrt(levels.shape[-1])
    natural = levels[..., np.argsort(zigzag(size))].astype(jnp.float32)
    coefficients = natural.reshape(*levels.shape[:-1], size, size)
    coefficients = coefficients * _wide(tables(quality, levels.shape[-2], size), coefficients)
    colours = from_blocks(inverse_dct(coefficients)) + 128.0
    return rgb(colours) if levels.shape[-2] == 3 else colours


def bounds(quality: int, channels: int = 3, size: int = BLOCK) -> np.ndarray:
    """int [channels, size^2] in zig-zag order: the greatest absolute value of each quantised coefficient of 8-bit pixels.

    A coefficient is greatest where every pixel is as far from the middle as it can be, on the side of the basis's sign.
    """
    reach = np.abs(dct_matrix(size)).sum(1)
    greatest = 128 * np.outer(reach, reach)[None] / tables(quality, channels, size)
    return np.floor(greatest + 0.5 + 1e-6).astype(int).reshape(channels, -1)[:, zigzag(size)]


def bound(quality: int, channels: int = 3, size: int = BLOCK) -> int:
    """The greatest absolute value that a quantised coefficient of 8-bit pixels can have."""
    return int(bounds(quality, channels, size).max())
