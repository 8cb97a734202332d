"""Twice and half the size with a FIR filter: low-pass and resample in one, an axis at a time (Zhang 2019, Karras et al.).

Filters are separable and given as taps, which are normalised to sum 1. Each output is a few shifted and strided views of
the input added up, which XLA fuses; no convolution with zeros between pixels is run.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.nn.fir import upfirdn2d
from jgen.types import Array


def _normalised(taps: Sequence[float]) -> list[float]:
    total = sum(taps)
    if not taps or total == 0:
        raise UserError(f"taps={list(taps)}: a filter needs taps that do not add up to 0")
    return [t / total for t in taps]


def doublings(size: int) -> int:
    """How often 4, or an odd number, is doubled to give `size`. Raises UserError for sizes below 8 or odd ones.

    >>> doublings(28), doublings(32)
    (2, 3)
    """
    if size < 8 or size % 2:
        raise UserError(f"size={size}: must be even, and at least 8 pixels")
    count = 0
    while size % 2 == 0 and size > 4:
        size, count = size // 2, count + 1
    return count


def downsample(x: Array, taps: Sequence[float] = (1, 1), pad: int | None = None) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, C]: output i is the sum of taps_k x[2 i + k - pad]; zeros beyond the image.

    pad: (len(taps) - 1) // 2 unless given. (1, 1) is the mean of each 2x2 square.
    """
    f = _normalised(taps)
    return upfirdn2d(x, np.asarray(f), down=2, padding=(len(f) - 1) // 2 if pad is None else pad, flip=True)


def upsample(x: Array, taps: Sequence[float] = (1, 1)) -> Array:
    """[B, H, W, C] -> [B, 2H, 2W, C], the transpose of `downsample` times 4: (1, 1) repeats every pixel.

    Each of the two phases of an axis is a few shifted copies of x.
    """
    return jnp.asarray(_upsample(x, tuple(_normalised(taps))))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _upsample(x: Array, f: tuple[float, ...]) -> Array:
    pad = (len(f) - 1) // 2
    reach = len(f)
    for axis in (1, 2):
        size = x.shape[axis]
        padded = jnp.pad(x, [(reach, reach) if a == axis else (0, 0) for a in range(4)])
        phases = []
        for r in (0, 1):
            terms = [
                2 * f[k] * lax.slice_in_dim(padded, reach + (r + pad - k) // 2, reach + (r + pad - k) // 2 + size, 1, axis)
                for k in range(len(f))
                if (r + pad - k) % 2 == 0
            ]
            phases.append(sum(terms[1:], terms[0]))
        shape = list(x.shape)
        shape[axis] *= 2
        x = jnp.stack(phases, axis + 1).reshape(shape)
    return x


def _upsample_forward(x: Array, f: tuple[float, ...]) -> tuple[Array, None]:
    return _upsample(x, f), None


def _upsample_backward(f: tuple[float, ...], _: None, dy: Array) -> tuple[Array]:
    return (4 * downsample(dy, f),)


_upsample.defvjp(_upsample_forward, _upsample_backward)
