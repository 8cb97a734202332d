"""Gradient noise at given points, with Perlin's fixed table: for patterns that other programs make too.

Perlin 2002 ("Improving noise"), and simplex noise after Gustavson 2005; conventions are those of the Python package `noise`.
Points are [N, 2] or [N, 3], a plane is the space at z = 0. `jgen.edit.noise` has planes of random lattices.
"""

import itertools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from opensimplex import OpenSimplex

from jgen.errors import UserError
from jgen.types import Array

TABLE = np.array([
    151, 160, 137, 91, 90, 15, 131, 13, 201, 95, 96, 53, 194, 233, 7, 225, 140, 36, 103, 30, 69, 142, 8, 99, 37, 240, 21, 10,
    23, 190, 6, 148, 247, 120, 234, 75, 0, 26, 197, 62, 94, 252, 219, 203, 117, 35, 11, 32, 57, 177, 33, 88, 237, 149, 56, 87,
    174, 20, 125, 136, 171, 168, 68, 175, 74, 165, 71, 134, 139, 48, 27, 166, 77, 146, 158, 231, 83, 111, 229, 122, 60, 211,
    133, 230, 220, 105, 92, 41, 55, 46, 245, 40, 244, 102, 143, 54, 65, 25, 63, 161, 1, 216, 80, 73, 209, 76, 132, 187, 208, 89,
    18, 169, 200, 196, 135, 130, 116, 188, 159, 86, 164, 100, 109, 198, 173, 186, 3, 64, 52, 217, 226, 250, 124, 123, 5, 202,
    38, 147, 118, 126, 255, 82, 85, 212, 207, 206, 59, 227, 47, 16, 58, 17, 182, 189, 28, 42, 223, 183, 170, 213, 119, 248, 152,
    2, 44, 154, 163, 70, 221, 153, 101, 155, 167, 43, 172, 9, 129, 22, 39, 253, 19, 98, 108, 110, 79, 113, 224, 232, 178, 185,
    112, 104, 218, 246, 97, 228, 251, 34, 242, 193, 238, 210, 144, 12, 191, 179, 162, 241, 81, 51, 145, 235, 249, 14, 239, 107,
    49, 192, 214, 31, 181, 199, 106, 157, 184, 84, 204, 176, 115, 121, 50, 45, 127, 4, 150, 254, 138, 236, 205, 93, 222, 114,
    67, 29, 24, 72, 243, 141, 128, 195, 78, 66, 215, 61, 156, 180,
])  # fmt: skip
"""Perlin's permutation of 0 to 255."""
EDGES = np.array([
    [1, 1, 0], [-1, 1, 0], [1, -1, 0], [-1, -1, 0], [1, 0, 1], [-1, 0, 1], [1, 0, -1], [-1, 0, -1], [0, 1, 1], [0, -1, 1],
    [0, 1, -1], [0, -1, -1], [1, 0, -1], [-1, 0, -1], [0, -1, 1], [0, 1, 1],
])  # fmt: skip
"""Gradients towards the edges of a cube; the last four repeat others, for Perlin's noise alone."""


def hashed(lattice: Array) -> Array:
    """Numbers 0 to 255 of lattice points int [..., D]."""
    table, found = jnp.asarray(TABLE), jnp.zeros((), int)
    for axis in reversed(range(lattice.shape[-1])):  # the order of the simplex code; Perlin's has the other
        found = table[(lattice[..., axis] + found) & 255]
    return found


def in_space(points: Array) -> Array:
    """Points [N, 2 or 3] -> [N, 3]. Raises UserError for others."""
    if points.ndim != 2 or points.shape[1] not in (2, 3):
        raise UserError(f"points: of shape {points.shape}; must be [N, 2] or [N, 3]")
    return jnp.pad(points, ((0, 0), (0, 3 - points.shape[1])))


def perlin(
    points: Array, octaves: int = 1, repeat: int = 1024, persistence: float = 0.5, lacunarity: float = 2.0, base: int = 0
) -> Array:
    """Perlin's improved noise [N], which repeats after so many cells.

    Each octave has `lacunarity` times the frequency and `persistence` times the amplitude of the one before. base: a shift of
    the cells, for another pattern. Raises UserError for no octave, and no cell.
    """
    if octaves < 1 or repeat < 1:
        raise UserError(f"octaves={octaves}, repeat={repeat}: must be at least 1")
    at, shift = in_space(points), np.where(np.arange(3) < points.shape[1], base, 0)
    return _summed(lambda scale: _perlin(at * scale, repeat * scale, shift), octaves, persistence, lacunarity)


def _summed(noise: Callable[[float], Array], octaves: int, persistence: float, lacunarity: float) -> Array:
    """Octaves of noise, a function of the scale of its points, weighted so that their weights' sum is 1."""
    if octaves < 1:
        raise UserError(f"octaves={octaves}: must be at least 1")
    amplitudes = persistence ** np.arange(octaves)
    parts = [a * noise(lacunarity**i) for i, a in enumerate(amplitudes)]
    return sum(parts[1:], parts[0]) / amplitudes.sum()


def _perlin(at: Array, repeat: float, shift: np.ndarray) -> Array:
    low = jnp.floor(jnp.fmod(at, repeat)).astype(int)
    high = jnp.fmod(low + 1, repeat).astype(int)
    part = at - jnp.floor(at)
    fade = part**3 * (part * (6 * part - 15) + 10)
    table, total = jnp.asarray(TABLE), jnp.zeros(len(at), at.dtype)
    for corner in itertools.product((0, 1), repeat=3):
        chosen = (jnp.where(jnp.asarray(corner)[None] == 1, high, low) + shift[None]).astype(int) & 255
        number = table[chosen[:, 0]]
        for axis in (1, 2):
            number = table[(number + chosen[:, axis]) & 255]
        slope = jnp.sum(jnp.asarray(EDGES)[number & 15] * (part - jnp.asarray(corner)[None]), -1)
        total += slope * jnp.prod(jnp.where(jnp.asarray(corner)[None] == 1, fade, 1 - fade), -1)
    return total


def simplex(points: Array, octaves: int = 1, persistence: float = 0.5, lacunarity: float = 2.0) -> Array:
    """Simplex noise [N]: contributions of the corners of the triangle or tetrahedron that a point lies in; octaves as `perlin`.

    Raises UserError for no octave.
    """
    in_space(points)  # refuses others
    return _summed(lambda scale: _simplex(points * scale), octaves, persistence, lacunarity)


def _simplex(points: Array) -> Array:
    dims = points.shape[-1]
    skew, unskew = ((dims + 1) ** 0.5 - 1) / dims, (1 - (dims + 1) ** -0.5) / dims
    cell = jnp.floor(points + skew * jnp.sum(points, 1, keepdims=True))
    inside = points - (cell - unskew * jnp.sum(cell, 1, keepdims=True))
    rank = jnp.sum(inside[:, :, None] > inside[:, None, :], -1)  # how many coordinates each is above
    ties = jnp.sum((inside[:, :, None] == inside[:, None, :]) & (np.arange(dims)[:, None] < np.arange(dims))[None], -1)
    rank, total = rank + ties, jnp.zeros(len(points), points.dtype)
    for step in range(dims + 1):  # from the cell's corner along the largest coordinate first
        corner = (rank >= dims - step).astype(int)
        offset = inside - corner + step * unskew
        number = hashed((cell + corner).astype(int)) % 12
        slope = jnp.sum(jnp.asarray(EDGES)[number, :dims] * offset, -1)
        reach = jnp.maximum((0.5 if dims == 2 else 0.6) - jnp.sum(jnp.square(offset), -1), 0.0)
        total += reach**4 * slope
    return total * (70.0 if dims == 2 else 32.0)


def open_simplex(points: np.ndarray, seed: int) -> np.ndarray:
    """OpenSimplex noise [N] of the opensimplex package, on the host."""
    made = OpenSimplex(seed)
    value = made.noise2 if points.shape[-1] == 2 else made.noise3
    return np.array([value(*map(float, point)) for point in points])
