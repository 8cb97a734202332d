"""FIR filters around resampling and convolution, as StyleGAN2 and 3 have them: exact, with any taps, factors and padding.

A signal is first given zeros between (and after) its samples, then padded, then filtered, then thinned out. Filters are
numpy arrays [taps] (applied along both axes) or [height, width], known when the program is built; each output is a sum of
shifted views, which XLA fuses. Reverse-mode differentiation only, of any order. Sources: Karras et al. 2020
(arXiv:1912.04958, 2006.06676) and their reference implementation.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.nn.conv import conv
from jgen.nn.dense import product
from jgen.nn.plain import grouped
from jgen.types import Array

Padding = int | Sequence[int]
"""One number, [x, y], or [left, right, top, bottom]; negative numbers crop."""


def setup_filter(
    taps: Any, *, normalize: bool = True, flip: bool = False, gain: float = 1.0, separable: bool | None = None
) -> np.ndarray:
    """A filter from taps: fewer than 8 become their outer product [n, n] unless `separable`; None is the single tap 1."""
    f = np.atleast_1d(np.asarray(1.0 if taps is None else taps, np.float64))
    if f.ndim > 2 or not f.size:
        raise UserError(f"taps of shape {f.shape}: a filter has 1 or 2 axes and at least one tap")
    separable = (f.ndim == 1 and f.size >= 8) if separable is None else separable
    if f.ndim == 1 and not separable:
        f = np.outer(f, f)
    f = f / f.sum() if normalize else f
    f = np.flip(f) if flip else f
    return f * gain ** (f.ndim / 2)


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    """(x, y)."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def padded_sides(padding: Padding) -> tuple[int, int, int, int]:
    """(left, right, top, bottom)."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) == 2:
        return padding[0], padding[0], padding[1], padding[1]
    left, right, top, bottom = padding
    return left, right, top, bottom


def upfirdn2d(
    x: Array, f: np.ndarray | None, *, up: Any = 1, down: Any = 1, padding: Padding = 0, flip: bool = False, gain: float = 1.0
) -> Array:
    """x [B, H, W, C] filtered and resampled. up, down: a factor, or [x, y]. flip: correlate in place of convolving."""
    f = np.ones((1, 1)) if f is None else np.asarray(f, np.float64)
    f = f if flip else np.flip(f)
    (up_x, up_y), (down_x, down_y) = _pair(up), _pair(down)
    left, right, top, bottom = padded_sides(padding)
    # Zeros follow every sample, the last one too.
    zero = jnp.zeros((), x.dtype)
    x = lax.pad(x, zero, [(0, 0, 0), (top, bottom + up_y - 1, up_y - 1), (left, right + up_x - 1, up_x - 1), (0, 0, 0)])
    if f.ndim == 1:
        return _along(_along(x, f * gain**0.5, 1, down_y), f * gain**0.5, 2, down_x)
    f = f * gain
    if np.linalg.matrix_rank(f) < 2:  # an outer product goes along one axis after the other
        column, row = _factors(f)
        return _along(_along(x, column, 1, down_y), row, 2, down_x)
    size = (x.shape[1] - len(f)) // down_y + 1
    rows = [lax.slice_in_dim(x, k, k + (size - 1) * down_y + 1, down_y, 1) for k in range(len(f))]
    terms: list[Array] = [_along(r, f[k], 2, down_x) for k, r in enumerate(rows)]
    return sum(terms[1:], terms[0])


def _factors(f: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) whose outer product a filter of rank 1 is."""
    at = np.unravel_index(np.argmax(np.abs(f)), f.shape)
    return f[:, at[1]] / f[at], f[at[0]]


def _along(x: Array, f: np.ndarray, axis: int, down: int) -> Array:
    """The correlation of x with taps f along one axis, every down-th value."""
    size = (x.shape[axis] - len(f)) // down + 1
    if size < 1:
        raise UserError(f"filter of {len(f)} taps: longer than the padded image's {x.shape[axis]} pixels")
    seen = lax.slice_in_dim(x, 0, (size - 1) * down + len(f), 1, axis)
    return jnp.asarray(_correlated(seen, tuple(f.tolist()), axis, down))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3))
def _correlated(x: Array, taps: tuple[float, ...], axis: int, down: int) -> Array:
    """The filter of an x whose last pixel is the last one seen.

    The gradient is the filter the other way round; left to itself it would pad and write out each shifted view.
    """
    reach = x.shape[axis] - len(taps) + 1
    terms: list[Array] = [
        x.dtype.type(tap) * lax.slice_in_dim(x, k, k + reach, down, axis) for k, tap in enumerate(taps) if tap
    ]
    return sum(terms[1:], terms[0])


def _correlated_forward(x: Array, taps: tuple[float, ...], axis: int, down: int) -> tuple[Array, None]:
    return _correlated(x, taps, axis, down), None


def _correlated_backward(taps: tuple[float, ...], axis: int, down: int, _: None, dy: Array) -> tuple[Array]:
    rim = len(taps) - 1
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [(rim, rim, down - 1) if a == axis else (0, 0, 0) for a in range(dy.ndim)])
    return (jnp.asarray(_correlated(spread, taps[::-1], axis, 1)),)


_correlated.defvjp(_correlated_forward, _correlated_backward)


def _shape(f: np.ndarray | None) -> tuple[int, int]:
    """(width, height)."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def filter2d(x: Array, f: np.ndarray | None, *, padding: Padding = 0, flip: bool = False, gain: float = 1.0) -> Array:
    """x filtered, its size kept but for `padding`."""
    p, (w, h) = padded_sides(padding), _shape(f)
    p = (p[0] + w // 2, p[1] + (w - 1) // 2, p[2] + h // 2, p[3] + (h - 1) // 2)
    return upfirdn2d(x, f, padding=p, flip=flip, gain=gain)


def upsample2d(
    x: Array, f: np.ndarray | None, *, up: Any = 2, padding: Padding = 0, flip: bool = False, gain: float = 1.0
) -> Array:
    """x `up` times as large; brightness is kept."""
    p, (w, h), (ux, uy) = padded_sides(padding), _shape(f), _pair(up)
    p = (p[0] + (w + ux - 1) // 2, p[1] + (w - ux) // 2, p[2] + (h + uy - 1) // 2, p[3] + (h - uy) // 2)
    return upfirdn2d(x, f, up=up, padding=p, flip=flip, gain=gain * ux * uy)


def downsample2d(
    x: Array, f: np.ndarray | None, *, down: Any = 2, padding: Padding = 0, flip: bool = False, gain: float = 1.0
) -> Array:
    """x a `down`-th as large."""
    p, (w, h), (dx, dy) = padded_sides(padding), _shape(f), _pair(down)
    p = (p[0] + (w - dx + 1) // 2, p[1] + (w - dx) // 2, p[2] + (h - dy + 1) // 2, p[3] + (h - dy) // 2)
    return upfirdn2d(x, f, down=down, padding=p, flip=flip, gain=gain)


def conv2d_resample(
    x: Array,
    kernel: Array,
    f: np.ndarray | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: Padding = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Array:
    """x [B, H, W, I] resampled by a filter and convolved with kernel [h, w, I / groups, O].

    Padding is added once, for filter and kernel together. Upsampling comes before the convolution, and so does the filter
    of downsampling. flip_weight: correlate with the kernel, else convolve.
    """
    p, (w, h) = padded_sides(padding), _shape(f)
    if up > 1:
        p = (p[0] + (w + up - 1) // 2, p[1] + (w - up) // 2, p[2] + (h + up - 1) // 2, p[3] + (h - up) // 2)
    if down > 1:
        p = (p[0] + (w - down + 1) // 2, p[1] + (w - down) // 2, p[2] + (h - down + 1) // 2, p[3] + (h - down) // 2)
    if kernel.shape[:2] == (1, 1) and groups == 1 and (up > 1) != (down > 1):
        # It commutes with the filter, so it sees the smaller of the two images only.
        x = product(x, kernel[0, 0]) if up > 1 else x
        x = upfirdn2d(x, f, up=up, down=down, padding=p, flip=flip_filter, gain=up**2)
        return x if up > 1 else product(x, kernel[0, 0])
    kernel = kernel if flip_weight else kernel[::-1, ::-1]
    if up > 1 or down > 1:
        x = upfirdn2d(x, f, up=up, padding=p, flip=flip_filter, gain=up**2)
        p = (0, 0, 0, 0)
    stride = down if up == 1 else 1
    pads = ((max(p[2], 0), max(p[3], 0)), (max(p[0], 0), max(p[1], 0)))
    x = grouped(x, kernel, stride, pads, groups)
    return upfirdn2d(x, f, down=down, flip=flip_filter) if up > 1 and down > 1 else x


def upsample_conv(x: Array, kernel: Array, taps: Any = (1, 3, 3, 1)) -> Array:
    """x [B, H, W, I] twice as large, truly convolved with kernel [3, 3, I, O] and filtered by taps -> [B, 2H, 2W, O].

    The same numbers as `conv2d_resample(x, kernel, f, up=2, padding=1, flip_weight=False)` for a quarter of its arithmetic:
    where zeros stand between pixels, an even row (column) of the convolution sees two taps of the kernel and an odd one sees
    one, so it is four convolutions of the small image. The filter comes after them. taps: numbers along both axes, or
    [height, width].
    """
    f = np.asarray(taps, np.float64)
    if f.ndim not in (1, 2) or not f.size or kernel.shape[:2] != (3, 3):
        raise UserError(
            f"taps of shape {f.shape}, kernel {kernel.shape[:2]}: must be numbers or rows of them, and a 3x3 kernel"
        )
    kernel, zero, spread = kernel[::-1, ::-1], jnp.zeros((), x.dtype), []
    for r in (0, 1):
        for s in (0, 1):
            phase = conv(x, kernel[r : 3 - r : 2, s : 3 - s : 2], ((1 - r, 1 - r), (1 - s, 1 - s)))
            spread.append(lax.pad(phase, zero, [(0, 0, 0), (r, r, 1), (s, s, 1), (0, 0, 0)]))
    # The four together have a pixel more than twice the sides.
    w, h = _shape(f)
    pads = ((w + 1) // 2 - 1, (w - 2) // 2, (h + 1) // 2 - 1, (h - 2) // 2)
    return upfirdn2d(sum(spread[1:], spread[0]), 2**f.ndim * f / f.sum(), padding=pads)
