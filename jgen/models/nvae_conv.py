"""NVAE's convolutions: plain ones, weight-normalised ones, and masked ones for the flows of its posteriors."""

from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.nn.conv import conv
from jgen.nn.dense import product
from jgen.nn.depthwise import depthwise
from jgen.nn.plain import convolve
from jgen.nn.precision import at_least_float32
from jgen.types import Array

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's start of a layer: uniform within 1 over the root of its inputs."""
Mask = Literal["none", "strict", "causal", "strict_mirrored", "causal_mirrored"]
"""Which inputs an output sees: all; those before it in raster order; those and its own; or these in an image turned by 180
degrees. Channels of a pixel have one order, mirrored or not."""


def kernel_name(mask: Mask) -> str:
    """The name of a kernel's parameter, which says how it is masked."""
    return "kernel" if mask == "none" else f"{mask}_kernel"


def causal_mask(shape: tuple[int, ...], mask: Mask) -> np.ndarray:
    """0 and 1 for a kernel of a shape [k, k, I, O], k odd.

    The fewer channels of input and output are the variables; the other ones belong to them in equal blocks, in order. So a
    depthwise kernel (I = 1) is masked between pixels alone.
    """
    size, _, inputs, outputs = shape
    middle, variables = size // 2, min(inputs, outputs)
    found = np.zeros(shape, np.float32)
    found[:middle], found[middle, :middle] = 1, 1
    of_input, of_output = (np.arange(n) * variables // n for n in (inputs, outputs))
    ahead = of_output[None] - of_input[:, None]
    found[middle, middle] = ahead > 0 if mask.startswith("strict") else ahead >= 0
    return found[::-1, ::-1] if mask.endswith("mirrored") else found


def normalized_kernel(kernel: Array, log_norm: Array | None) -> Array:
    """A kernel [..., O] whose outputs have norms exp(log_norm) [O]; None leaves it as it is."""
    if log_norm is None:
        return kernel
    wide, log_norm = at_least_float32(kernel), at_least_float32(log_norm)
    size = jnp.sqrt(jnp.sum(jnp.square(wide), tuple(range(kernel.ndim - 1)), keepdims=True))
    return (jnp.exp(log_norm).reshape(*[1] * (kernel.ndim - 1), -1) * wide / (size + 1e-5)).astype(kernel.dtype)


def effective_kernel(layer: Mapping[str, Any]) -> Array | None:
    """The kernel [k, k, I, O] that a convolution of these parameters applies; None for other layers."""
    for mask in ("none", "strict", "causal", "strict_mirrored", "causal_mirrored"):
        kernel = layer.get(kernel_name(mask))
        if kernel is not None and kernel.ndim == 4:
            return normalized_kernel(_masked(kernel, mask), layer.get("log_norm"))
    return None


def _masked(kernel: Array, mask: Mask) -> Array:
    return kernel if mask == "none" else kernel * jnp.asarray(causal_mask(kernel.shape, mask), kernel.dtype)


class Conv(nn.Module):
    """Convolution with weight normalisation and a bias, or with neither (plain); zeros around."""

    features: int
    size: int = 1
    stride: int = 1
    plain: bool = False
    depthwise: bool = False
    bias: bool = True
    mask: Mask = "none"
    gain: float = 1.0
    """Factor of the outputs at the start."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        name = kernel_name(self.mask)
        kernel = self.param(name, UNIFORM, (self.size, self.size, 1 if self.depthwise else x.shape[-1], self.features))
        layer = {name: kernel}
        if not self.plain:
            layer["log_norm"] = self.param("log_norm", lambda _: self._log_norm(_masked(kernel, self.mask)))
        used = effective_kernel(layer)
        assert used is not None
        x = self._convolved(x, used)
        if self.plain or not self.bias:
            return x
        return x + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]

    def _log_norm(self, kernel: Array) -> Array:
        return jnp.log(jnp.sqrt(jnp.sum(jnp.square(kernel), (0, 1, 2))) + 1e-2) + float(np.log(self.gain))

    def _convolved(self, x: Array, kernel: Array) -> Array:
        rim = (self.size // 2, self.size // 2)
        if self.depthwise:
            return depthwise(x, kernel)
        if self.stride > 1:
            return convolve(x, kernel, self.stride, (rim, rim))
        return product(x, kernel[0, 0]) if self.size == 1 else conv(x, kernel, (rim, rim))
