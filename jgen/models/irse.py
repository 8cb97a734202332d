"""The residual trunk of ArcFace (Deng et al. 2018, arXiv:1801.07698), IR and IR-SE, that pSp's and e4e's encoders stand on."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.norm import BatchNorm
from jgen.nn.plain import Conv
from jgen.types import Array


class PReLU(nn.Module):
    """A leaky ReLU whose slope each channel learns (He et al. 2015, arXiv:1502.01852)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
        return jnp.where(x >= 0, x, x * slope.reshape(*[1] * (x.ndim - 1), -1))


def convolution(features: int, stride: int = 1, name: str | None = None) -> nn.Conv:
    """A 3x3 convolution without bias, one pixel of zeros around."""
    return Conv(features, (3, 3), stride, padding=1, use_bias=False, name=name)


class IRUnit(nn.Module):
    """x [B, H, W, I] -> [B, H / stride, W / stride, features], sides rounded up.

    Where widths agree the shortcut takes every stride-th pixel, elsewhere it is a convolution.
    """

    features: int
    stride: int = 1
    squeeze: bool = True
    """Scales channels by what their means say (squeeze and excitation, Hu et al. 2017, arXiv:1709.01507)."""

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        step = self.stride
        if x.shape[-1] == self.features:
            shortcut = x[:, ::step, ::step]
        else:
            shortcut = nn.Dense(self.features, use_bias=False, name="shortcut")(x[:, ::step, ::step])
            shortcut = BatchNorm(name="shortcut_norm")(shortcut, train)
        h = convolution(self.features, name="conv1")(BatchNorm(name="norm1")(x, train))
        h = convolution(self.features, step, name="conv2")(PReLU(name="act")(h))
        h = BatchNorm(name="norm2")(h, train)
        if self.squeeze:
            mean = jnp.mean(h, (1, 2), keepdims=True)
            narrow = nn.relu(nn.Dense(max(self.features // 16, 1), use_bias=False, name="squeeze")(mean))
            h = h * nn.sigmoid(nn.Dense(self.features, use_bias=False, name="excite")(narrow))
        return shortcut + h


class Trunk(nn.Module):
    """Images [B, H, W, C] in [-1, 1] -> the features after each level of units, the largest first; each halves the sides."""

    channels: Sequence[int] = (64, 128, 256, 512)
    units: Sequence[int] = (3, 4, 14, 3)
    """Units of each level; ArcFace's network of 50 layers. (3, 13, 30, 3) is that of 100, (3, 8, 36, 3) that of 152."""
    squeeze: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> list[Array]:
        x = convolution(self.channels[0], name="stem")(images)
        x = PReLU(name="stem_act")(BatchNorm(name="stem_norm")(x, train))
        found, number = [], 0
        for width, count in zip(self.channels, self.units, strict=True):
            for i in range(count):
                x = IRUnit(width, 1 if i else 2, self.squeeze, name=f"unit_{number}")(x, train)
                number += 1
            found.append(x)
        return found
