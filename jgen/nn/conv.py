"""Convolutions, by Winograd's way where it pays: on CPUs, with channels enough (`jgen.nn.winograd`)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from jgen.nn import winograd
from jgen.nn.barrier import settled
from jgen.nn.norm import Affine
from jgen.nn.plain import convolve
from jgen.nn.silu_conv import activated, silu_conv
from jgen.nn.winograd import Padding
from jgen.types import Array

SAME: Padding = ((1, 1), (1, 1))
"""That keeps the size under a 3x3 kernel."""


def plain(x: Array, kernel: Array, padding: str = "SAME") -> Array:
    """x [B, H, W, I] * kernel [3, 3, I, O] -> [B, H, W, O], one pixel of zeros around where padding is SAME."""
    return convolve(x, kernel, 1, padding)


def conv3x3(x: Array, kernel: Array) -> Array:
    """`plain`, the faster way. Reverse-mode differentiation only, of any order."""
    return conv(x, kernel, SAME)


def upsampled_conv3x3(x: Array, kernel: Array) -> Array:
    """`plain` of x [B, H, W, I] with every pixel repeated to a 2x2 square: [B, 2H, 2W, O] for 4/9 of the arithmetic.

    Three taps on repeated pixels see two different ones; an even row (column) the one before and its own, an odd row its own
    and the one after. So each of the four phases is a 2x2 convolution of the small image with taps added up.
    """
    b, height, width, _ = x.shape
    sums = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])  # [phase, tap of two, tap of three]
    taps = [[mixed_taps(mixed_taps(kernel, sums[r], 0), sums[s], 1) for s in (0, 1)] for r in (0, 1)]
    phases = [[conv(x, taps[r][s], ((1 - r, r), (1 - s, s))) for s in (0, 1)] for r in (0, 1)]
    rows = jnp.stack([jnp.stack(row, 3) for row in phases], 2)
    return rows.reshape(b, 2 * height, 2 * width, kernel.shape[-1])


def mixed_taps(kernel: Array, matrix: np.ndarray, axis: int) -> Array:
    """matrix [n, m] times the m taps of a kernel along an axis, in sums of slices: so small a product is slow on CPUs."""
    taps = [lax.index_in_dim(kernel, k, axis) for k in range(matrix.shape[1])]
    return jnp.concatenate([sum(v if c == 1 else c * v for c, v in zip(row, taps) if c) for row in matrix.tolist()], axis)


def conv(x: Array, kernel: Array, padding: Padding) -> Array:
    """`convolve` of stride 1 with a small kernel, the faster way. Reverse-mode differentiation only, of any order."""
    if winograd.pays(x, kernel, padding):
        return winograd.convolve(x, kernel, padding)
    if any(sum(p) >= size for p, size in zip(padding, kernel.shape)):
        # dy is larger than x: the gradient by the kernel would be a convolution whose kernel is larger than its image,
        # which XLA turns around, to a form that CPUs are slow at. Padded first, x is the larger.
        x, padding = settled(jnp.pad(x, ((0, 0), *padding, (0, 0)))), ((0, 0), (0, 0))
    return convolve(x, kernel, 1, padding)


class Conv3x3(nn.Module):
    """3x3 convolution with bias, one pixel of zero padding on every side, stride 1 or 2; parameters as nn.Conv's.

    asymmetric: with stride 2, the padding is right of and below the image only. up: of the image with every pixel repeated to
    a 2x2 square.
    """

    features: int
    stride: int = 1
    dtype: jnp.dtype | None = None
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    asymmetric: bool = False
    up: bool = False

    @nn.compact
    def __call__(
        self,
        x: Array,
        affine: Affine | None = None,
        between: Callable[[Array], Array] | None = None,
        offset: Array | None = None,
    ) -> Array:
        """The convolution of x or, with a norm's affine, of between(silu(affine(x))); offset [B, O] is added to the bias."""
        assert affine is not None or between is None
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))[None]
        added: Any = bias if offset is None else bias + offset
        x, kernel, added = promote_dtype(x, kernel, added, dtype=self.dtype)
        if affine is not None:
            if between is None and self.stride == 1 and not self.up and winograd.pays(x, kernel, SAME):
                return silu_conv(x, affine, kernel, jnp.broadcast_to(added, (len(x), self.features)), SAME)
            x = activated(x, affine)
            x = x if between is None else between(x)
        return self._convolved(x, kernel) + added[:, None, None]

    def _convolved(self, x: Array, kernel: Array) -> Array:
        if self.stride == 1:
            return (upsampled_conv3x3 if self.up else conv3x3)(x, kernel)
        pad = (0, 1) if self.asymmetric else (1, 1)
        return convolve(x, kernel, self.stride, (pad, pad))
