"""The leaky ReLU between two resamplings of alias-free networks, as one operation whose gradient is the operation transposed.

Karras et al. 2021 (arXiv:2106.12423), section 3.2: the signal is upsampled by a filter, bent at the higher rate, and filtered
down again, so that frequencies which the bend adds do not fold back. Backwards, the gradient goes up by the second filter
turned round, is scaled by the slopes that were met (kept as one byte each), and goes down by the first.

Filters are products with dense matrices, an axis at a time, where images are small: on CPUs and GPUs alike those beat sums of
shifted images, and their transposes are products too. A filter that is no outer product goes as a few that are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.fir import Padding, padded_sides, upfirdn2d
from jgen.nn.warp import along
from jgen.types import Array

DENSE_SIDE = 128
"""Images up to this side are filtered by matrices."""


def resampling_matrix(size: int, taps: np.ndarray, up: int, down: int, before: int, after: int) -> np.ndarray:
    """[out, size]: up - 1 zeros follow each sample of an axis, which is padded and correlated; every down-th value is kept."""
    length = size * up + before + after
    out = (length - len(taps)) // down + 1
    if out < 1:
        raise UserError(f"filter of {len(taps)} taps: longer than the padded image's {length} pixels")
    matrix = np.zeros((out, size))
    place = np.arange(out)[:, None] * down + np.arange(len(taps))[None] - before
    row, tap = np.nonzero((place >= 0) & (place < size * up) & (place % up == 0))
    np.add.at(matrix, (row, place[row, tap] // up), taps[tap])
    return matrix


def _outer_products(f: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(column, row) pairs whose outer products add up to a filter [h, w]."""
    u, s, v = np.linalg.svd(f)
    kept = s > s[0] * 1e-9
    return [(u[:, i] * s[i], v[i]) for i in range(len(s)) if kept[i]]


def resample(
    x: Array, f: np.ndarray | None, *, up: int = 1, down: int = 1, padding: Padding = 0, gain: float = 1.0, flip: bool = False
) -> Array:
    """`upfirdn2d` of one factor for both axes, by dense matrices where the image is small."""
    if max(x.shape[1:3]) > DENSE_SIDE:
        return upfirdn2d(x, f, up=up, down=down, padding=padding, gain=gain, flip=flip)
    left, right, top, bottom = padded_sides(padding)
    f = np.ones(1) if f is None else np.asarray(f, np.float64)
    f = f if flip else np.flip(f)
    pairs = [(f * gain**0.5, f * gain**0.5)] if f.ndim == 1 else _outer_products(f * gain)
    total: Any = 0.0
    for column, row in pairs:
        rows = resampling_matrix(x.shape[1], column, up, down, top, bottom)
        columns = resampling_matrix(x.shape[2], row, up, down, left, right)
        total = total + along(x, rows, columns)
    return total


def filtered_lrelu(
    x: Array,
    bias: Array | None = None,
    up_filter: np.ndarray | None = None,
    down_filter: np.ndarray | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    gain: float = 2**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
    flip: bool = False,
) -> Array:
    """x [B, H, W, C] + bias [C], `up` times the rate, leaky ReLU times gain within +-clamp, and down to a down-th.

    padding is of the upsampled image: one number, [x, y], or [left, right, top, bottom]; negative numbers crop. Filters are
    taps [n] for both axes or [height, width]; flip: correlate with them, else convolve. Reverse-mode differentiation only, of
    any order. Raises UserError for factors below 1, a slope, gain or clamp below 0, and filters longer than the image.
    """
    if min(up, down) < 1 or min(slope, gain, 0.0 if clamp is None else clamp) < 0:
        raise UserError(f"up={up}, down={down}, slope={slope}, gain={gain}, clamp={clamp}: must be at least 1, 1, 0, 0 and 0")

    shape = x.shape

    def rise(x: Array) -> Array:
        return resample(x, up_filter, up=up, padding=padding, gain=up**2, flip=flip)

    def fall(y: Array) -> Array:
        return resample(y, down_filter, down=down, flip=flip)

    def bend(high: Array) -> tuple[Array, Array]:
        """(values, which slope: 1 for positive, -1 for negative, 0 where the clamp holds)."""
        y = high * jnp.where(high < 0, slope * gain, gain).astype(high.dtype)
        side = jnp.where(high < 0, -1, 1).astype(jnp.int8)
        if clamp is None:
            return y, side
        return jnp.clip(y, -clamp, clamp), jnp.where(jnp.abs(y) > clamp, 0, side).astype(jnp.int8)

    @jax.custom_vjp
    def run(x: Array) -> Array:
        return fall(bend(rise(x))[0])

    def forward(x: Array) -> tuple[Array, Array]:
        y, side = bend(rise(x))
        return fall(y), side

    def backward(side: Array, dz: Array) -> tuple[Array]:
        slopes = jnp.where(side > 0, gain, jnp.where(side < 0, slope * gain, 0.0)).astype(dz.dtype)
        (dy,) = jax.vjp(fall, jnp.zeros(side.shape, dz.dtype))[1](dz)
        return jax.vjp(rise, jnp.zeros(shape, dz.dtype))[1](dy * slopes)

    run.defvjp(forward, backward)
    return jnp.asarray(run(x if bias is None else x + bias.reshape(1, 1, 1, -1)))
