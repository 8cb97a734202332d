"""The compiler's own convolution, with jgen's order of axes, and a barrier to its rewriting."""

from typing import Any

from jax import lax

from jgen.types import Array

DIMENSIONS = ("NHWC", "HWIO", "NHWC")


def convolve(x: Array, kernel: Array, stride: int | tuple[int, int], padding: Any) -> Array:
    """x [B, H, W, I] * kernel [h, w, I, O] -> [B, H', W', O]; padding: "SAME", "VALID" or ((top, bottom), (left, right))."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)


def settled(x: Array) -> Array:
    """x, and its gradient, as arrays of their own on CPUs; elsewhere XLA may make them part of what reads them.

    This holds in programs that `jgen.train.sharding.jit_step` compiles. In others XLA takes the barrier away before it fuses.
    """
    return lax.platform_dependent(x, cpu=lax.optimization_barrier, default=lambda v: v)
