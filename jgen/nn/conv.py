"""3x3 convolution whose weight gradient is fast on a CPU too.

XLA's CPU backend runs a convolution and its input gradient near the machine's limit, but the gradient of the weights
of a large image below it: that is a convolution with a kernel as large as the image. Summed over tiles of 7 or 8 pixels, and
over parts of the batch that leave a tile in the cache, it is up to 1.4 times faster (`python -m benchmarks conv`). Other
backends take the plain gradient.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype
from jax import lax

from jgen.types import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Padding = tuple[tuple[int, int], tuple[int, int]]
"""Rows above and below, columns left and right."""
SAME: Padding = ((1, 1), (1, 1))
"""That keeps the size under a 3x3 kernel."""
TILES = (7, 8, 6, 5, 4)
"""Sides of a tile, best first; an axis takes the first that divides it, else 8, and its last tile is smaller.

From 128 pixels on they grow with the image, so that there are never hundreds along an axis."""
SMALLEST = 14
"""Sides below this are not tiled."""
PIECE = 40_000
"""Numbers of a tile's dy, over the images of a part, that still stay in the cache."""
MOST_PARTS = 4
"""Of a batch: each is an operation a tile, and takes time to compile."""


def convolve(x: Array, kernel: Array, stride: int | tuple[int, int], padding: Any) -> Array:
    """x [B, H, W, I] * kernel [h, w, I, O] -> [B, H', W', O]; padding: "SAME", "VALID" or ((top, bottom), (left, right))."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def convolve_transposed(x: Array, kernel: Array, padding: Any) -> Array:
    """The transposed convolution of stride 2: every pixel of x [B, H, W, I] spreads kernel [h, w, I, O].

    padding is of x with a zero between its pixels, before the flipped kernel passes over it.
    """
    return lax.conv_general_dilated(x, kernel[::-1, ::-1], (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS)


def plain(x: Array, kernel: Array, padding: str = "SAME") -> Array:
    """x [B, H, W, I] * kernel [3, 3, I, O] -> [B, H, W, O], one pixel of zeros around where padding is SAME."""
    return convolve(x, kernel, 1, padding)


def conv3x3(x: Array, kernel: Array) -> Array:
    """`plain` with the faster weight gradient on CPUs. Reverse-mode differentiation only, of any order."""
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
    """`convolve` of stride 1 with a small kernel, and the faster weight gradient on CPUs."""
    return jnp.asarray(_conv(x, kernel, padding))


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x: Array, kernel: Array, padding: Padding) -> Array:
    return convolve(x, kernel, 1, padding)


def _forward(x: Array, kernel: Array, padding: Padding) -> tuple[Array, tuple[Array, Array]]:
    return convolve(x, kernel, 1, padding), (x, kernel)


def _backward(padding: Padding, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (dx,) = jax.vjp(lambda x: convolve(x, kernel, 1, padding), x)[1](dy)
    # A dy larger than x would change places with it, into a form that is slow; tiles are of x with its padding.
    small = max(_tile(dy.shape[1]), _tile(dy.shape[2])) == 0 and dy.size // dy.shape[-1] <= x.size // x.shape[-1]
    whole = small or jax.default_backend() != "cpu"  # asked here, for hundreds of tiles take long even to trace
    return dx, (kernel_gradient if whole else tiled_kernel_gradient)(kernel, padding, x, dy)


_conv.defvjp(_forward, _backward)


def kernel_gradient(kernel: Array, padding: Padding | str, x: Array, dy: Array) -> Array:
    """The gradient of `kernel` as the compiler makes it."""
    return jax.vjp(lambda k: convolve(x, k, 1, padding), kernel)[1](dy)[0]


def tiled_kernel_gradient(kernel: Array, padding: Padding, x: Array, dy: Array) -> Array:
    """The gradient of `kernel` as a sum over tiles of dy [B, H, W, O], each with the rim of x that it sees."""
    (height, width, features), (tall, wide) = dy.shape[1:], kernel.shape[:2]
    down, right = _tile(height) or height, _tile(width) or width
    parts = _parts(len(x), down * right * features)
    # Part k holds the images k, k + parts, ...: each device has its own share of all of them.
    x, dy = (v.reshape(-1, parts, *v.shape[1:]) for v in (jnp.pad(x, ((0, 0), *padding, (0, 0))), dy))
    total = sum(
        lax.conv_general_dilated(
            x[:, k, i : i + down + tall - 1, j : j + right + wide - 1],
            dy[:, k, i : i + down, j : j + right],
            (1, 1),
            "VALID",
            dimension_numbers=("CHWN", "IHWO", "NHWC"),  # the sum goes over images as a convolution's does over channels
        )
        for k in range(parts)
        for i in range(0, height, down)
        for j in range(0, width, right)
    )
    return jnp.transpose(total, (1, 2, 0, 3))


def _tile(size: int) -> int:
    if size < SMALLEST:
        return 0
    return next((t for t in TILES if size % t == 0), 8) * max(size // 64, 1)


def _parts(images: int, size: int) -> int:
    """Into how many parts to take a batch whose images have tiles of so many numbers, on devices that share it evenly."""
    each, parts = images / jax.device_count(), 1
    while parts < MOST_PARTS and each % (2 * parts) == 0 and size * each > PIECE * parts:
        parts *= 2
    return parts


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
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if self.stride == 1:
            return (upsampled_conv3x3 if self.up else conv3x3)(x, kernel) + bias[None, None, None]
        pad = (0, 1) if self.asymmetric else (1, 1)
        return convolve(x, kernel, self.stride, (pad, pad)) + bias[None, None, None]
