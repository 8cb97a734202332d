"""The compiler's own convolution, with jgen's order of axes, and with gradients that CPUs are fast at in loops too.

XLA's compiler for CPUs brings a convolution's axes into the order that its fast routines take, but in the outermost program
alone: in the body of a loop (a sampler's guidance, a projection, several steps in one dispatch, accumulated gradients) the
gradients that it derives stay in another order, and take 10 to 60 times as long. So they are written here in the fast order.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.types import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
"""Rows above and below, columns left and right; negative ones crop."""
Gradients = tuple[Any, Any]


def convolve(x: Array, kernel: Array, stride: int | Pair, padding: Any) -> Array:
    """x [B, H, W, I] * kernel [h, w, I, O] -> [B, H', W', O]; padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    On CPUs reverse-mode differentiation only, of any order.
    """
    strides = (stride, stride) if isinstance(stride, int) else stride
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    (top, bottom), (left, right) = padding
    return jnp.asarray(_convolved(x, kernel, strides, ((top, bottom), (left, right))))


def grouped(x: Array, kernel: Array, stride: int, padding: Any, groups: int) -> Array:
    """`convolve` of groups of channels, which the compiler makes as it will where there are several."""
    if groups == 1:
        return convolve(x, kernel, stride, padding)
    strides = (stride, stride)
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS, feature_group_count=groups)


def convolve_transposed(x: Array, kernel: Array, padding: Pads) -> Array:
    """The transposed convolution of stride 2: every pixel of x [B, H, W, I] spreads kernel [h, w, I, O].

    padding is of x with a zero between its pixels, before the flipped kernel passes over it. On CPUs reverse-mode
    differentiation only, of any order.
    """
    if jax.default_backend() != "cpu":
        turned = kernel[::-1, ::-1]
        return lax.conv_general_dilated(x, turned, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS)
    axes = list(zip(kernel.shape, padding, x.shape[1:3]))
    (top, height), (left, width) = (
        (size - 1 - before, 2 * n - 1 + before + after - size + 1) for size, (before, after), n in axes
    )
    return jnp.asarray(_by_image(jnp.swapaxes(kernel, 2, 3), x, (2, 2), ((top, 0), (left, 0)), (height, width)))


# <dy, x * kernel> is linear in all three. Its derivatives by dy, x and the kernel are the three functions below, so that the
# gradient of each of them is made of the other two. Only the padding before an image matters to the last two; what is after
# it follows from the sizes.


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolved(x: Array, kernel: Array, strides: Pair, padding: Pads) -> Array:
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_image(kernel: Array, dy: Array, strides: Pair, padding: Pads, sides: Sequence[int]) -> Array:
    """The gradient [B, H, W, I] by the image, sides = (H, W): dy, spread by the strides, with the kernel turned round."""
    rims = []
    for n, m, size, stride, (before, _) in zip(sides, dy.shape[1:3], kernel.shape, strides, padding):
        low = size - 1 - before
        rims.append((low, n - (m - 1) * stride - 1 - low + size - 1))
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(dy, turned, (1, 1), rims, lhs_dilation=strides, dimension_numbers=DIMENSIONS)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _by_kernel(x: Array, dy: Array, strides: Pair, padding: Pads, sizes: Sequence[int]) -> Array:
    """The gradient [h, w, I, O] by the kernel, sizes = (h, w): the images are the channels, and dy is the kernel."""
    rims = []
    for n, m, size, stride, (before, _) in zip(x.shape[1:3], dy.shape[1:3], sizes, strides, padding):
        rims.append((before, size - n - before + (m - 1) * stride))
    images, kernel = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(dy, (1, 2, 0, 3))
    found = lax.conv_general_dilated(images, kernel, (1, 1), rims, rhs_dilation=strides, dimension_numbers=DIMENSIONS)
    return jnp.transpose(found, (1, 2, 0, 3))


def _of_convolved(strides: Pair, padding: Pads, saved: tuple[Array, Array], dy: Array) -> Gradients:
    x, kernel = saved
    by_image = _by_image(kernel, dy, strides, padding, x.shape[1:3])
    return by_image, _by_kernel(x, dy, strides, padding, kernel.shape[:2])


def _of_by_image(strides: Pair, padding: Pads, sides: Sequence[int], saved: tuple[Array, Array], x: Array) -> Gradients:
    kernel, dy = saved
    by_kernel = _by_kernel(x, dy, strides, padding, kernel.shape[:2])
    return by_kernel, _convolved(x, kernel, strides, _whole(padding, sides, dy.shape[1:3], kernel.shape, strides))


def _of_by_kernel(strides: Pair, padding: Pads, sizes: Sequence[int], saved: tuple[Array, Array], kernel: Array) -> Gradients:
    x, dy = saved
    by_image = _by_image(kernel, dy, strides, padding, x.shape[1:3])
    return by_image, _convolved(x, kernel, strides, _whole(padding, x.shape[1:3], dy.shape[1:3], sizes, strides))


def _whole(padding: Pads, sides: Sequence[int], outputs: Sequence[int], sizes: Sequence[int], strides: Pair) -> Pads:
    """The padding, with as much after an image as its outputs need."""
    axes = zip(padding, sides, outputs, sizes, strides)
    rows, columns = ((before, (m - 1) * stride + size - n - before) for (before, _), n, m, size, stride in axes)
    return rows, columns


_convolved.defvjp(lambda x, kernel, *how: (_convolved(x, kernel, *how), (x, kernel)), _of_convolved)
_by_image.defvjp(lambda kernel, dy, *how: (_by_image(kernel, dy, *how), (kernel, dy)), _of_by_image)
_by_kernel.defvjp(lambda x, dy, *how: (_by_kernel(x, dy, *how), (x, dy)), _of_by_kernel)


def _general(x: Any, kernel: Any, strides: Any, padding: Any, **options: Any) -> Any:
    """`lax.conv_general_dilated` as flax calls it."""
    usual = options.get("feature_group_count", 1) == 1 and options.get("precision") is None
    dilations = [options.get(name) for name in ("lhs_dilation", "rhs_dilation")]
    if x.ndim == 4 and usual and all(d is None or set(d) == {1} for d in dilations):
        return convolve(x, kernel, tuple(strides), padding)
    return lax.conv_general_dilated(x, kernel, strides, padding, **options)


class Conv(nn.Conv):
    """flax's convolution by `convolve`; grouped and dilated ones stay the compiler's."""

    conv_general_dilated: Any = _general
