"""The compiler's own convolution, with jgen's order of axes, and with gradients that CPUs are fast at in loops too.

XLA's compiler for CPUs brings a convolution's axes into the order that its fast routines take, but in the outermost program
alone: in the body of a loop (a sampler's guidance, a projection, several steps in one dispatch, accumulated gradients) the
gradients that it derives stay in another order, and take 10 to 60 times as long. So they are written here in the fast order.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.nn.trilinear import closed
from jgen.types import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]
"""Rows above and below, columns left and right; negative ones crop."""


def convolve(x: Array, kernel: Array, stride: int | Pair, padding: Any) -> Array:
    """x [B, H, W, I] * kernel [h, w, I, O] -> [B, H', W', O]; padding: "SAME", "VALID" or ((top, bottom), (left, right)).

    On CPUs reverse-mode differentiation only, of any order.
    """
    strides = (stride, stride) if isinstance(stride, int) else stride
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
    sides, sizes = x.shape[1:3], kernel.shape[:2]
    outputs = tuple((n + sum(p) - size) // s + 1 for n, p, size, s in zip(sides, padding, sizes, strides))
    return _convolved(x, kernel, Sizes(strides, tuple(before for before, _ in padding), sides, sizes, outputs))


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
    before = tuple(size - 1 - first for size, (first, _), _ in axes)
    sides = tuple(2 * n - 1 + sum(p) - size + 1 for size, p, n in axes)
    how = Sizes((2, 2), before, sides, kernel.shape[:2], x.shape[1:3])
    return _by_image(jnp.swapaxes(kernel, 2, 3), x, how)


class Sizes(NamedTuple):
    """A convolution along both axes; how much padding comes after an image follows from it."""

    strides: tuple[int, ...]
    before: tuple[int, ...]
    """Padding above and left of an image."""
    sides: tuple[int, ...]
    """Sides of the images x."""
    sizes: tuple[int, ...]
    """Sides of the kernel."""
    outputs: tuple[int, ...]
    """Sides of the outputs y."""

    @property
    def axes(self) -> Iterator[tuple[int, ...]]:
        """(stride, padding before, side, size, output) of each axis."""
        return zip(*self)


def _from_image_and_kernel(x: Array, kernel: Array, how: Sizes) -> Array:
    pads = [(before, (m - 1) * stride + size - n - before) for stride, before, n, size, m in how.axes]
    return lax.conv_general_dilated(x, kernel, how.strides, pads, dimension_numbers=DIMENSIONS)


def _from_kernel_and_output(kernel: Array, dy: Array, how: Sizes) -> Array:
    """The gradient [B, H, W, I] by the image: dy, spread by the strides, with the kernel turned round."""
    lows = [size - 1 - before for _, before, _, size, _ in how.axes]
    pads = [(low, n - (m - 1) * stride - 1 - low + size - 1) for low, (stride, _, n, size, m) in zip(lows, how.axes)]
    turned = jnp.swapaxes(kernel[::-1, ::-1], 2, 3)
    return lax.conv_general_dilated(dy, turned, (1, 1), pads, lhs_dilation=how.strides, dimension_numbers=DIMENSIONS)


def _from_image_and_output(x: Array, dy: Array, how: Sizes) -> Array:
    """The gradient [h, w, I, O] by the kernel: the images are the channels, and dy is the kernel."""
    pads = [(before, size - n - before + (m - 1) * stride) for stride, before, n, size, m in how.axes]
    images, kernel = jnp.transpose(x, (3, 1, 2, 0)), jnp.transpose(dy, (1, 2, 0, 3))
    found = lax.conv_general_dilated(images, kernel, (1, 1), pads, rhs_dilation=how.strides, dimension_numbers=DIMENSIONS)
    return jnp.transpose(found, (1, 2, 0, 3))


_convolved, _by_image, _ = closed(_from_image_and_kernel, _from_kernel_and_output, _from_image_and_output)


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
