"""The compiler's own convolution, with jgen's order of axes."""

from typing import Any

from jax import lax

from jgen.types import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, stride: int | tuple[int, int], padding: Any) -> Array:
    """x [B, H, W, I] * kernel [h, w, I, O] -> [B, H', W', O]; padding: "SAME", "VALID" or ((top, bottom), (left, right))."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)
