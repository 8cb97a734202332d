"""Depthwise convolution: on CPUs a sum of shifted images, which XLA fuses; its own convolution is many times as slow there."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.nn.plain import DIMENSIONS
from jgen.types import Array


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's zeros before and after an axis: one more at the end where the total is odd."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def even_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """`same_padding` of an axis that is one longer where it is odd."""
    return same_padding(size + size % 2, kernel, stride)


def depthwise(x: Array, kernel: Array, stride: int = 1, even: bool = False) -> Array:
    """x [B, H, W, C] with kernel [k, k, 1, C], channel by channel, zeros around as TensorFlow's SAME.

    even: odd sides have as many zeros around them as even ones. Reverse-mode differentiation only, of any order.
    """
    rows, columns = ((even_padding if even else same_padding)(size, len(kernel), stride) for size in x.shape[1:3])
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(
            x, kernel, (stride, stride), (rows, columns), dimension_numbers=DIMENSIONS, feature_group_count=x.shape[-1]
        )
    return jnp.asarray(_valid(jnp.pad(x, ((0, 0), rows, columns, (0, 0))), kernel[:, :, 0], stride))


def _views(x: Array, size: int, stride: int) -> list[Array]:
    """x shifted by every tap of a kernel of a size, row by row, and thinned out."""
    height, width = ((n - size) // stride + 1 for n in x.shape[1:3])
    ends = (height - 1) * stride + 1, (width - 1) * stride + 1
    return [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] for i in range(size) for j in range(size)]


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _valid(x: Array, kernel: Array, stride: int) -> Array:
    """x [B, H, W, C], padded, with kernel [k, k, C]."""
    taps = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1])
    terms: list[Array] = [view * taps[i] for i, view in enumerate(_views(x, len(kernel), stride))]
    return sum(terms[1:], terms[0])


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _valid(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = saved
    size = len(kernel)
    spread = lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *[(size - 1, 0, stride - 1)] * 2, (0, 0, 0)])
    after = [n + size - 1 - m for n, m in zip(x.shape[1:3], spread.shape[1:3])]
    spread = jnp.pad(spread, ((0, 0), (0, after[0]), (0, after[1]), (0, 0)))
    by_taps = jnp.stack([jnp.sum(view * dy, (0, 1, 2)) for view in _views(x, size, stride)])
    return jnp.asarray(_valid(spread, kernel[::-1, ::-1], 1)), by_taps.reshape(kernel.shape)


_valid.defvjp(_forward, _backward)


class Depthwise(nn.Module):
    """`depthwise` with a bias; parameters as nn.Conv's."""

    size: int
    stride: int = 1
    even: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape = (self.size, self.size, 1, x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],))
        return depthwise(x, kernel, self.stride, self.even) + bias.reshape(1, 1, 1, -1)
