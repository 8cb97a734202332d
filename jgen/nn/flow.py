"""Layers of flows (Dinh et al. 2016, arXiv:1605.08803; Kingma & Dhariwal 2018, arXiv:1807.03039).

One contract: a layer called with x [B, H, W, C] gives (z, log |det dz/dx|), the latter of each image [B] or one number for all;
its method `inverse` takes z back to x. Three code bases disagree on how the parameters act; `Convention` names the differences.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

from jgen.errors import UserError
from jgen.nn.conv import SAME, conv
from jgen.nn.dense import product
from jgen.nn.plain import convolve
from jgen.nn.precision import at_least_float32
from jgen.types import Array

LOG_SCALE_FACTOR = 3.0
"""Log scales are stored divided by it, which makes their learning rate as much larger."""
Norm = Literal["log", "plain", "outward", "inward"]
Split = Literal["channel", "channel_inv", "checkerboard", "checkerboard_inv"]
ScaleMap = Literal["sigmoid", "exp", "sigmoid_inv"]


class Convention(NamedTuple):
    """How the parameters of a Glow act. ORIGINAL, PORT and NORMFLOWS are those of three code bases."""

    norm: Norm
    """Form of the actnorms between couplings, see `ActNorm`."""
    hidden_norm: Norm | None
    """Form of the actnorms after a coupling network's hidden convolutions, which then have no bias; None for none."""
    border: Literal["channel", "ones", "zeros"]
    """Beyond the image a 3x3 convolution sees zeros and a channel that is one there only; or ones; or zeros. "ones" is of last
    convolutions and priors alone: hidden convolutions see zeros."""
    scaled_last: bool
    """Multiply a last convolution by exp(3 log_scale)."""
    interleaved: bool
    """Even channels are shifts (means), odd ones raw scales (log deviations); else raw scales come first, in one half, and
    means first in the priors."""
    outward: bool
    """A coupling's parameters are those of the way from latents to data: z = (x - shift) * scale; else (x + shift) * scale."""


ORIGINAL = Convention("log", "log", "channel", True, True, False)
"""openai/glow, in TensorFlow."""
PORT = Convention("plain", None, "ones", True, False, False)
"""rosinality/glow-pytorch."""
NORMFLOWS = Convention("outward", None, "zeros", False, True, True)
"""VincentStimper/normalizing-flows; its net_actnorm is hidden_norm="inward"."""


def squeeze(x: Array) -> Array:
    """[B, H, W, C] -> [B, H/2, W/2, 4C]: channel 4c + 2 dy + dx is pixel (dy, dx) of each square.

    Raises UserError for odd sides.
    """
    b, height, width, c = x.shape
    if height % 2 or width % 2:
        raise UserError(f"image of {height}x{width}: each squeeze halves the sides, which must be even")
    x = x.reshape(b, height // 2, 2, width // 2, 2, c)
    return jnp.einsum("byixjc->byxcij", x).reshape(b, height // 2, width // 2, 4 * c)


def unsqueeze(x: Array) -> Array:
    """The inverse of `squeeze`."""
    b, height, width, c = x.shape
    x = x.reshape(b, height, width, c // 4, 2, 2)
    return jnp.einsum("byxcij->byixjc", x).reshape(b, 2 * height, 2 * width, c // 4)


def gaussian_log_prob(x: Array, mean: Array, log_deviation: Array) -> Array:
    """log N(x; mean, deviation), element by element."""
    return -0.5 * float(np.log(2 * np.pi)) - log_deviation - 0.5 * jnp.square((x - mean) * jnp.exp(-log_deviation))


def per_image(values: Array) -> Array:
    """The sum over each image [B] of values [B, ...]."""
    return jnp.sum(values, tuple(range(1, values.ndim)))


def halves(x: Array, mode: Split = "channel") -> tuple[Array, Array]:
    """(what conditions, what is transformed): channels in two halves, the first one the larger, or the fields of a board."""
    if mode.startswith("channel"):
        first, second = jnp.split(x, [(x.shape[-1] + 1) // 2], -1)
        return (second, first) if mode == "channel_inv" else (first, second)
    if x.shape[2] % 2:
        raise UserError(f"width {x.shape[2]}: a checkerboard needs an even one")
    even, odd = x[:, :, 0::2], x[:, :, 1::2]
    light = _light(x, mode)
    return jnp.where(light, odd, even), jnp.where(light, even, odd)


def joined(first: Array, second: Array, mode: Split = "channel") -> Array:
    """The inverse of `halves`."""
    if mode.startswith("channel"):
        return jnp.concatenate([second, first] if mode == "channel_inv" else [first, second], -1)
    light = _light(first, mode)
    pair = jnp.stack([jnp.where(light, second, first), jnp.where(light, first, second)], 3)
    return pair.reshape(*first.shape[:2], -1, first.shape[-1])


def _light(x: Array, mode: str) -> Array:
    """bool [1, H, 1, C]: where the odd column of a pair is what conditions."""
    parity = (np.arange(x.shape[1])[:, None] + np.arange(x.shape[-1])[None]) % 2
    return jnp.asarray((parity == (1 if mode.endswith("inv") else 0))[None, :, None])


class ActNorm(nn.Module):
    """A shift and a scale of each channel, such that the first batch comes out with mean 0 and deviation 1.

    form: "log" (x + shift) exp(3 scale); "plain" (x + shift) scale; "outward" (x - shift) exp(-scale); "inward"
    x exp(scale) + shift. Where the deviation of a batch is taken: divided by n for "log", by n - 1 for the others.
    """

    form: Norm = "log"

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:
        form, wide = self.form, (None,) * (x.ndim - 1)

        def moments() -> tuple[Array, Array]:
            flat = x.reshape(-1, x.shape[-1])
            return jnp.mean(flat, 0), jnp.std(flat, 0, ddof=0 if form == "log" else 1) + 1e-6

        def first_shift(_: Array) -> Array:
            mean, deviation = moments()
            return {"outward": mean, "inward": -mean / deviation}.get(form, -mean)

        def first_scale(_: Array) -> Array:
            log = jnp.log(moments()[1])
            return {"log": -log / LOG_SCALE_FACTOR, "plain": jnp.exp(-log), "inward": -log}.get(form, log)

        shift, scale = self.param("shift", first_shift)[wide], self.param("scale", first_scale)
        log_scale = {"log": LOG_SCALE_FACTOR * scale, "outward": -scale}.get(form, scale)
        gain = (scale if form == "plain" else jnp.exp(log_scale))[wide]
        total = jnp.sum(jnp.log(jnp.abs(scale)) if form == "plain" else log_scale)
        if inverse:
            x = {"inward": (x - shift) / gain, "outward": x / gain + shift}.get(form, x / gain - shift)
        else:
            x = {"inward": x * gain + shift, "outward": (x - shift) * gain}.get(form, (x + shift) * gain)
        return x, x[0, ..., 0].size * total

    def inverse(self, z: Array) -> Array:
        return self(z, inverse=True)[0]


def random_rotation(key: Array, shape: tuple[int, int], dtype: jnp.dtype = jnp.float32) -> Array:
    """A random orthogonal matrix."""
    return jnp.linalg.qr(jax.random.normal(key, shape, dtype))[0]


class Invertible1x1(nn.Module):
    """A matrix [out, in] of the channels of every pixel, a rotation at first; with lu, the factors of its LU decomposition.

    lu: W = P L (U + diag(sign exp(log_s))), L unit lower and U strictly upper; P and sign are not trained and stand in the
    collection "fixed". The log-determinant is then a sum over log_s.
    """

    lu: bool = False

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:
        c, pixels = x.shape[-1], x[0, ..., 0].size
        if not self.lu:
            w = self.param("weight", random_rotation, (c, c))
            if inverse:
                return product(x, jnp.linalg.inv(w).T), jnp.zeros(())
            return product(x, w.T), pixels * jnp.linalg.slogdet(w)[1]
        w, log_s = self.factors(c)
        if inverse:
            return product(x, jnp.linalg.inv(w).T), jnp.zeros(())
        return product(x, w.T), pixels * jnp.sum(log_s)

    def factors(self, c: int) -> tuple[Array, Array]:
        """(the matrix, log_s)."""

        def decomposed() -> tuple[Array, Array, Array]:
            return jax.scipy.linalg.lu(random_rotation(self.make_rng("params"), (c, c)))

        if self.is_initializing():
            p, first_lower, first_upper = decomposed()
        else:
            p, first_lower, first_upper = (jnp.zeros((c, c)),) * 3
        diagonal = jnp.diag(first_upper)
        p = self.variable("fixed", "permutation", lambda: p).value
        sign = self.variable("fixed", "sign", lambda: jnp.sign(diagonal)).value
        lower = self.param("lower", lambda _: jnp.tril(first_lower, -1))
        upper = self.param("upper", lambda _: jnp.triu(first_upper, 1))
        log_s = self.param("log_s", lambda _: jnp.log(jnp.abs(diagonal)))
        lower = jnp.tril(lower, -1) + jnp.eye(c, dtype=lower.dtype)
        return p @ lower @ (jnp.triu(upper, 1) + jnp.diag(sign * jnp.exp(log_s))), log_s

    def inverse(self, z: Array) -> Array:
        return self(z, inverse=True)[0]


class BorderConv(nn.Module):
    """A convolution of stride 1 with a border as `Convention.border`; "last" ones begin at zero, and may be scaled."""

    features: int
    size: int = 3
    border: Literal["channel", "ones", "zeros"] = "zeros"
    use_bias: bool = True
    last: bool = False
    scaled: bool = False
    dtype: jnp.dtype | None = None
    """The convolution's own; x's and the weights' where it is None."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.zeros if self.last else nn.initializers.normal(0.05)
        inputs, edged = x.shape[-1], self.border == "channel" and self.size > 1
        kernel = self.param("kernel", init, (self.size, self.size, inputs + edged, self.features))
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        if self.size == 1:
            x = product(x, kernel[0, 0])
        else:
            x = conv(x, kernel[:, :, :inputs], SAME) + self._border(x, kernel)
        x = x + self._vector("bias") if self.use_bias else x
        return x * jnp.exp(LOG_SCALE_FACTOR * self._vector("scale")) if self.scaled else x

    def _border(self, x: Array, kernel: Array) -> Array:
        """The outputs [1, H, W, O] of a border of ones, in a channel of its own or in all; they are alike for all images."""
        if self.border == "zeros":
            return jnp.zeros((1, 1, 1, 1), x.dtype)
        edge = jnp.pad(jnp.zeros((1, *x.shape[1:3], 1), x.dtype), ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=1)
        own = kernel[:, :, x.shape[-1] :] if self.border == "channel" else jnp.sum(kernel, 2, keepdims=True)
        return convolve(edge, own, 1, "VALID")

    def _vector(self, name: str) -> Array:
        return self.param(name, nn.initializers.zeros, (self.features,))[None, None, None]


class CouplingNet(nn.Module):
    """3x3, 1x1 and 3x3 convolutions with ReLUs between; the last one begins at zero. Outputs are float32 at least."""

    outputs: int
    width: int
    convention: Convention = ORIGINAL
    leaky: float = 0.0
    dtype: jnp.dtype | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        c = self.convention
        hidden = "zeros" if c.border == "ones" else c.border
        for i, size in enumerate((3, 1)):
            x = BorderConv(self.width, size, hidden, c.hidden_norm is None, dtype=self.dtype, name=f"conv_{i}")(x)
            if c.hidden_norm is not None:
                x, _ = ActNorm(c.hidden_norm, name=f"norm_{i}")(x)
            x = nn.leaky_relu(x if self.dtype is None else x.astype(self.dtype), self.leaky)
        last = BorderConv(self.outputs, 3, c.border, last=True, scaled=c.scaled_last, dtype=self.dtype, name="last")
        return at_least_float32(last(x))


class Coupling(nn.Module):
    """One half shifts, and where affine scales, the other."""

    width: int = 512
    affine: bool = True
    convention: Convention = ORIGINAL
    split: Split = "channel"
    scale_map: ScaleMap = "sigmoid"
    """How a raw output becomes a scale: sigmoid(raw + 2), its inverse, or the exponential (on the way to the data where the
    convention is outward)."""
    leaky: float = 0.0
    dtype: jnp.dtype | None = None
    """The network's."""

    @nn.compact
    def __call__(self, x: Array, inverse: bool = False) -> tuple[Array, Array]:
        first, second = halves(x, self.split)
        outputs = second.shape[-1] * (2 if self.affine else 1)
        h = CouplingNet(outputs, self.width, self.convention, self.leaky, self.dtype, name="net")(first)
        sign = -1.0 if self.convention.outward else 1.0
        if not self.affine:
            second = second + (-sign if inverse else sign) * h
            return joined(first, second, self.split), jnp.zeros(())
        shift, log_scale = self._parameters(h)
        second = second * jnp.exp(-log_scale) - sign * shift if inverse else (second + sign * shift) * jnp.exp(log_scale)
        return joined(first, second, self.split), per_image(log_scale)

    def _parameters(self, h: Array) -> tuple[Array, Array]:
        """(shift, log of the scale on the way to the latents)."""
        raw, shift = (h[..., 1::2], h[..., 0::2]) if self.convention.interleaved else jnp.split(h, 2, -1)
        if self.scale_map == "exp":
            return shift, -raw if self.convention.outward else raw
        log_scale = jax.nn.log_sigmoid(raw + 2)
        return shift, -log_scale if self.scale_map == "sigmoid_inv" else log_scale

    def inverse(self, z: Array) -> Array:
        return self(z, inverse=True)[0]
