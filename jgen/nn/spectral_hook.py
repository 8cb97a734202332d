"""Layers with spectral normalisation as PyTorch's hook keeps it: both singular vectors are state, unrolled once a call.

Miyato et al. 2018 (arXiv:1802.05957). A kernel is divided by sigma = v' W u, its largest singular value as far as u and v have
come. A call with train=True first moves both by one power iteration, without a gradient, and keeps them in the collection
"spectral"; else they stay as they are. u is [out]; v has the kernel's other axes in order, [h * w * in].
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.nn.depthwise import depthwise
from jgen.nn.plain import grouped
from jgen.nn.precision import at_least_float32
from jgen.types import Array

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's start of a layer: uniform within 1 over the root of its inputs."""


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-12)


def spectral_kernel(module: nn.Module, kernel: Array, train: bool) -> Array:
    """A kernel [..., out] over its largest singular value; the module's vectors "u" and "v" move where `train` is set.

    The value is found in float32 at least, and the kernel keeps its type.
    """
    matrix = at_least_float32(kernel).reshape(-1, kernel.shape[-1])

    def vector(name: str, size: int) -> Any:
        return module.variable("spectral", name, lambda: _unit(jax.random.normal(module.make_rng("params"), (size,))))

    u, v = vector("u", matrix.shape[1]), vector("v", matrix.shape[0])
    if train and not module.is_initializing():
        still = jax.lax.stop_gradient(matrix)
        v.value = _unit(still @ u.value)
        u.value = _unit(still.T @ v.value)
    return (kernel / (v.value @ matrix @ u.value)).astype(kernel.dtype)


class SpectralConv(nn.Module):
    """Convolution [B, H, W, I] -> [B, H', W', features], zeros around."""

    features: int
    size: int = 3
    stride: int = 1
    padding: int = 0
    use_bias: bool = False
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = self.param("kernel", UNIFORM, (self.size, self.size, x.shape[-1] // self.groups, self.features))
        kernel = spectral_kernel(self, kernel, train)
        if self.groups == x.shape[-1] > 1 and self.padding == self.size // 2 and self.stride == 1 and not self.use_bias:
            return depthwise(x, kernel)
        around = ((self.padding, self.padding),) * 2
        x = grouped(x, kernel, self.stride, around, self.groups)
        if self.use_bias:
            x = x + self.param("bias", nn.initializers.zeros, (self.features,)).reshape(1, 1, 1, -1)
        return x


class SpectralDense(nn.Module):
    """x [B, I] -> [B, features], with a bias."""

    features: int

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        kernel = spectral_kernel(self, self.param("kernel", UNIFORM, (x.shape[-1], self.features)), train)
        return x @ kernel + self.param("bias", nn.initializers.zeros, (self.features,))[None]


class SpectralSpread(nn.Module):
    """z [B, I] -> [B, size, size, features]: the transposed convolution of a single pixel."""

    features: int
    size: int = 4

    @nn.compact
    def __call__(self, z: Array, train: bool) -> Array:
        kernel = self.param("kernel", UNIFORM, (self.size, self.size, z.shape[-1], self.features))
        return jnp.einsum("bi,hwio->bhwo", z, spectral_kernel(self, kernel, train))
