"""Spectral normalisation: layers whose weights are divided by their greatest singular value (Miyato et al. 2018,
arXiv:1802.05957), estimated by one step of the power method a call.

The collection "spectral" holds u [values, outputs], from which the next step starts, and sv [values], the last estimates. Both
move where the collection is mutable, that is in training; a call in evaluation takes the step too, and forgets it, as
BigGAN's authors do (ajbrock/BigGAN-PyTorch). They depend on weights alone, so they are equal on any number of devices.
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.nn.conv import conv, upsampled_conv3x3
from jgen.nn.dense import product
from jgen.nn.precision import at_least_float32
from jgen.types import Array


class SpectralNorm(NamedTuple):
    """How singular values are estimated."""

    epsilon: float = 1e-12
    """The least norm that a vector is divided by."""
    values: int = 1
    """Singular values that are tracked; the first alone divides the weight."""
    iterations: int = 1
    """Steps of the power method in a training call."""


def _unit(v: Array, epsilon: float) -> Array:
    return v / jnp.maximum(jnp.linalg.norm(v), epsilon)


def _across(v: Array, others: list[Array]) -> Array:
    """v without its components along the others, which are removed one after the other (Gram-Schmidt)."""
    for other in others:
        v = v - (v @ other) / (other @ other) * other
    return v


def power_iteration(matrix: Array, u: Array, epsilon: float = 1e-12) -> tuple[Array, Array]:
    """One step from u [n, O]: (the n greatest singular values of matrix [O, R], the next u).

    The values have a gradient by the matrix, with the singular vectors held constant.
    """
    frozen = lax.stop_gradient(matrix)
    values, us, vs = [], [], []
    for row in u:
        vs.append(_unit(_across(row @ frozen, vs), epsilon))
        us.append(_unit(_across(frozen @ vs[-1], us), epsilon))
        values.append(us[-1] @ (matrix @ vs[-1]))
    return jnp.stack(values), lax.stop_gradient(jnp.stack(us))


def normalized(module: nn.Module, weight: Array, norm: SpectralNorm | None, *, rows_first: bool = False) -> Array:
    """A weight of a module's compact method, divided by its singular value; None leaves it as it is.

    The matrix has a row an output: the last axis of a kernel, or the first one of an embedding (rows_first). The value is
    found in float32 at least, and the weight keeps its type.
    """
    if norm is None:
        return weight
    wide = at_least_float32(weight)
    matrix = wide.reshape(len(weight), -1) if rows_first else wide.reshape(-1, weight.shape[-1]).T
    shape = (norm.values, len(matrix))
    u = module.variable("spectral", "u", lambda: jax.random.normal(module.make_rng("params"), shape))
    sv = module.variable("spectral", "sv", jnp.ones, shape[:1])
    train = module.is_mutable_collection("spectral") and not module.is_initializing()
    found, after = power_iteration(matrix, u.value, norm.epsilon)
    if train:
        for _ in range(norm.iterations - 1):
            found, after = power_iteration(matrix, after, norm.epsilon)
        u.value, sv.value = after, lax.stop_gradient(found)
    return (wide / found[0]).astype(weight.dtype)


class Conv(nn.Module):
    """A convolution of stride 1 that keeps the size, with a bias or without."""

    features: int
    size: int = 3
    """The kernel's side; odd."""
    norm: SpectralNorm | None = None
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    up: bool = False
    """Convolves the image with every pixel repeated to a 2x2 square; 3x3 kernels only."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        kernel = normalized(self, kernel, self.norm)
        y = self._convolved(x, kernel)
        return y + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None] if self.use_bias else y

    def _convolved(self, x: Array, kernel: Array) -> Array:
        if self.size == 1:
            return product(x, kernel[0, 0])
        rim = (self.size // 2, self.size // 2)
        return upsampled_conv3x3(x, kernel) if self.up else conv(x, kernel, (rim, rim))


class Dense(nn.Module):
    """A dense layer of vectors [B, I], with a bias or without."""

    features: int
    norm: SpectralNorm | None = None
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = normalized(self, self.param("kernel", self.kernel_init, (x.shape[-1], self.features)), self.norm)
        y = product(x, kernel)
        return y + self.param("bias", nn.initializers.zeros, (self.features,))[None] if self.use_bias else y


class Embed(nn.Module):
    """Classes as weights [B, classes], one-hot or anything between, -> vectors [B, features]."""

    features: int
    norm: SpectralNorm | None = None
    embedding_init: nn.initializers.Initializer = nn.initializers.normal(1.0)

    @nn.compact
    def __call__(self, label: Array) -> Array:
        table = self.param("embedding", self.embedding_init, (label.shape[-1], self.features))
        return product(label, normalized(self, table, self.norm, rows_first=True))
