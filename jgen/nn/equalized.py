"""Layers with an equalised learning rate, and those that StyleGAN builds on them.

Weights are stored with unit variance and scaled when used, so that Adam moves all of them alike (Karras et al. 2018,
arXiv:1710.10196, section 4.1). Modulation scales features before a shared convolution and demodulation after it, which
equals a convolution with each image's own weights (Karras et al. 2020, arXiv:1912.04958, section 2.2).
"""

from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError, check_choice
from jgen.nn.conv import conv3x3, convolve
from jgen.nn.dense import product
from jgen.nn.fir import conv2d_resample, setup_filter, upsample_conv
from jgen.nn.precision import at_least_float32
from jgen.types import Array

Activation = Literal["linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish"]


def leaky_relu(x: Array, slope: float = 0.2) -> Array:
    """As flax's, written as one product, so that its gradient is one as well."""
    return x * jnp.where(x >= 0, 1.0, slope)


FUNCTIONS: dict[str, tuple[Callable[..., Array], float]] = {
    "linear": (lambda x: x, 1.0),
    "relu": (nn.relu, 2**0.5),
    "lrelu": (leaky_relu, 2**0.5),
    "tanh": (jnp.tanh, 1.0),
    "sigmoid": (nn.sigmoid, 1.0),
    "elu": (nn.elu, 1.0),
    "selu": (nn.selu, 1.0),
    "softplus": (nn.softplus, 1.0),
    "swish": (nn.silu, 2**0.5),
}
"""Each with the gain that keeps its variance."""
NORMAL = nn.initializers.normal(1.0)


def bias_act(
    x: Array, bias: Array | None = None, act: str = "linear", *, alpha: float = 0.2, gain: float | None = None,
    clamp: float | None = None,
) -> Array:  # fmt: skip
    """gain act(x + bias) within [-clamp, clamp]; bias [C]; alpha is the slope of lrelu; gain: the activation's own."""
    check_choice(FUNCTIONS, act=act)
    function, standard = FUNCTIONS[act]
    x = x if bias is None else x + bias.reshape(*[1] * (x.ndim - 1), -1)
    x = function(x, alpha) if act == "lrelu" else function(x)
    x = x * (standard if gain is None else gain)
    return x if clamp is None else jnp.clip(x, -clamp, clamp)


def normalize(x: Array, axis: int = -1) -> Array:
    """x over its root mean square along an axis: ProGAN's pixel norm, and what the mapping does to z."""
    wide = at_least_float32(x)  # moments of bfloat16 would be rounded
    return (wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis, keepdims=True) + 1e-8)).astype(x.dtype)


class Dense(nn.Module):
    """Dense layer with scaled weights; lr_mul: its learning rate as a share of the others'."""

    features: int
    act: Activation = "linear"
    lr_mul: float = 1.0
    bias_init: float = 0.0
    gain: float = 1.0
    """Gain of the weights: 2^0.5 before a leaky ReLU without a gain of its own."""
    act_gain: float | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        start = lambda key, shape, dtype=jnp.float32: NORMAL(key, shape, dtype) / self.lr_mul  # noqa: E731
        kernel = self.param("kernel", start, (x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.constant(self.bias_init), (self.features,))
        scale = self.gain * self.lr_mul / x.shape[-1] ** 0.5
        return bias_act(x @ (kernel * scale), bias * self.lr_mul, self.act, gain=self.act_gain)


class Conv(nn.Module):
    """Convolution with scaled weights, resampled by a FIR filter where up or down is 2."""

    features: int
    size: int = 3
    act: Activation = "linear"
    up: int = 1
    down: int = 1
    use_bias: bool = True
    gain: float = 1.0
    """Gain of the weights."""
    act_gain: float | None = None
    clamp: float | None = None
    taps: Sequence[float] = (1, 3, 3, 1)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", NORMAL, (self.size, self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,)) if self.use_bias else None
        kernel = kernel * (self.gain / (self.size**2 * x.shape[-1]) ** 0.5)
        pad = self.size // 2
        if self.up == 1 and self.down == 1:
            x = same(x, kernel)
        elif self.up == 2 and self.size == 3 and len(self.taps) == 4:
            x = upsample_conv(x, kernel, self.taps)
        else:
            f, flip = setup_filter(self.taps), self.up == 1
            x = conv2d_resample(x, kernel, f, up=self.up, down=self.down, padding=pad, flip_weight=flip)
        return bias_act(x, bias, self.act, gain=self.act_gain, clamp=self.clamp)


def same(x: Array, kernel: Array) -> Array:
    """x [B, H, W, I] convolved with kernel [k, k, I, O], zeros around, k odd."""
    if kernel.shape[0] == 1:
        return product(x, kernel[0, 0])
    return conv3x3(x, kernel) if kernel.shape[0] == 3 else convolve(x, kernel, 1, "SAME")


def modulated_conv(
    x: Array, kernel: Array, styles: Array, *, up: int = 1, demodulate: bool = True, taps: Sequence[float] = (1, 3, 3, 1)
) -> Array:
    """x [B, H, W, I] convolved with kernel [k, k, I, O] whose input channels are scaled by styles [B, I], image by image.

    demodulate: each output channel is divided by the norm of its scaled weights. up=2 convolves truly, then filters.
    """
    h = x * styles[:, None, None]
    if up == 2:
        h = upsample_conv(h, kernel, taps)
    else:
        h = same(h, kernel)
    if demodulate:
        squares = jnp.sum(jnp.square(at_least_float32(kernel)), (0, 1))
        h = h * jax.lax.rsqrt(jnp.square(at_least_float32(styles)) @ squares + 1e-8)[:, None, None].astype(h.dtype)
    return h


def minibatch_std(x: Array, group: int | None = 4, channels: int = 1) -> Array:
    """x [B, H, W, C] with `channels` more that hold the mean standard deviation over groups of images.

    Image n is in group n mod (B / group), so a group spans the batch whatever devices it lies on. Raises UserError where
    the group, at most the batch, does not divide it.
    """
    b, height, width, c = x.shape
    size = b if group is None else min(group, b)
    if b % size or c % channels:
        raise UserError(f"group={size}, channels={channels}: must divide the batch of {b} and the {c} channels")
    y = at_least_float32(x).reshape(size, b // size, height, width, channels, c // channels)
    y = jnp.sqrt(jnp.mean(jnp.square(y - jnp.mean(y, 0, keepdims=True)), 0) + 1e-8)
    y = jnp.mean(y, (1, 2, 4))  # [groups, channels]
    y = jnp.tile(y, (size, 1))[:, None, None]
    return jnp.concatenate([x, jnp.broadcast_to(y, (b, height, width, channels)).astype(x.dtype)], -1)


def sides_of(resolution: int) -> list[int]:
    """The sides from 4 to `resolution`. Raises UserError unless it is 4 times a power of 2."""
    if resolution < 4 or resolution & (resolution - 1):
        raise UserError(f"resolution={resolution}: must be a power of 2, at least 4")
    return [2**i for i in range(2, int(np.log2(resolution)) + 1)]


def widths(resolution: int, base: int, most: int) -> dict[int, int]:
    """{side: channels} from 4 to `resolution`: base / side, at most `most`.

    Raises UserError as `sides_of` does, and where no channel would be left.
    """
    if base < resolution or most < 1:
        raise UserError(f"channel_base={base}, channel_max={most}: must be at least {resolution} (the images' side) and 1")
    return {side: min(base // side, most) for side in sides_of(resolution)}
