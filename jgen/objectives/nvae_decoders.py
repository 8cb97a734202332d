"""NVAE's likelihoods of pixels (Vahdat & Kautz 2020, arXiv:2007.03898), as its code has them rather than PixelCNN++'s.

The last bin begins at 0.99, which takes in the level 254 of 255 too; a temperature divides a logistic's scale, so that one
below 1 makes the noise larger, as in the authors' code.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.objectives.likelihood import Likelihood, couple, discretized_logistic
from jgen.objectives.residual_normal import clamped
from jgen.types import Array

EDGE = 0.99


def mixture_decoder(mixtures: int = 10, channels: int = 3, *, num_bits: int = 8, temperature: float = 1.0) -> Likelihood:
    """A mixture of discretised logistics of images in [-1, 1] with 2^num_bits levels.

    outputs: mixture logits, then for each channel means, log scales (at least -7) and coefficients (tanh). Raises UserError for
    a number of channels that is not 1 or 3, or a temperature that is not above 0.
    """
    if channels not in (1, 3) or temperature <= 0:
        raise UserError(f"channels={channels}, temperature={temperature}: must be 1 or 3, and above 0")
    m, most, parts = mixtures, 2**num_bits - 1, 3 if channels == 3 else 2

    def split(outputs: Array) -> tuple[Array, Array, Array, Array | None]:
        rest = outputs[..., m:].reshape(*outputs.shape[:-1], channels, parts * m)
        scales = jnp.maximum(rest[..., m : 2 * m], -7.0)
        return outputs[..., :m], rest[..., :m], scales, jnp.tanh(rest[..., 2 * m :]) if parts == 3 else None

    def log_prob(outputs: Array, x: Array) -> Array:
        logits, means, scales, c = split(outputs)
        if c is not None:
            red, green = x[..., 0, None], x[..., 1, None]
            shifts = [jnp.zeros_like(means[..., 0, :]), c[..., 0, :] * red, c[..., 1, :] * red + c[..., 2, :] * green]
            means = means + jnp.stack(shifts, -2)
        each = discretized_logistic(x[..., None], means, scales, 1 / most, math.log(most / 2), EDGE, 1e-10)
        return jax.nn.logsumexp(jnp.sum(each, -2) + jax.nn.log_softmax(logits, -1), -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        logits, means, scales, c = split(outputs)
        chosen = jnp.argmax(logits / temperature - jnp.log(-jnp.log(uniforms[..., :m])), -1)

        def pick(x: Array) -> Array:
            return jnp.take_along_axis(x, chosen[..., None, None], -1)[..., 0]

        u = uniforms[..., m:]
        x = pick(means) + jnp.exp(pick(scales)) / temperature * (jnp.log(u) - jnp.log1p(-u))
        return jnp.clip(x, -1, 1) if c is None else couple(x, pick(c), -1, lambda x: jnp.clip(x, -1, 1))

    def mean(outputs: Array) -> Array:
        logits, means, _, c = split(outputs)
        weights = jax.nn.softmax(logits, -1)[..., None, :]
        means = jnp.sum(weights * means, -1)
        return (
            jnp.clip(means, -1, 1) if c is None else couple(means, jnp.sum(weights * c, -1), -1, lambda x: jnp.clip(x, -1, 1))
        )

    return Likelihood(m + channels * parts * m, log_prob, draw, m + channels, mean)


class Single(NamedTuple):
    """A likelihood whose channels are independent: log probabilities of each, and a draw."""

    each: Callable[[Array, Array], Array]
    """(outputs, pixels [..., C]) -> log probability of each channel [..., C]."""
    draw: Callable[[Array, Array], Array]


def logistic_decoder(channels: int = 3) -> Single:
    """One discretised logistic a channel of 8-bit images in [-1, 1]: means, then log scales (at least -8)."""

    def parts(outputs: Array) -> tuple[Array, Array]:
        return outputs[..., :channels], jnp.maximum(outputs[..., channels:], -8.0)

    def each(outputs: Array, x: Array) -> Array:
        mean, log_scale = parts(outputs)
        return discretized_logistic(x, mean, log_scale, 1 / 255, math.log(127.5), EDGE, 1e-10)

    def draw(outputs: Array, u: Array) -> Array:
        mean, log_scale = parts(outputs)
        return jnp.clip(mean + jnp.exp(log_scale) * (jnp.log(u) - jnp.log1p(-u)), -1, 1)

    return Single(each, draw)


def log_prob_of_normal(outputs: Array, x: Array) -> Array:
    """log density [..., C] of pixels in [-1, 1] under a softly clamped normal: means, then log deviations."""
    mean, log_deviation = jnp.split(outputs, 2, -1)
    return clamped(mean, log_deviation).log_prob(x)


def normal_decoder(channels: int = 1) -> Likelihood:
    """The Gaussian decoder of NCP-VAE's backbones; it is a density, not discretised. Drawn images are its mean and noise."""

    def log_prob(outputs: Array, x: Array) -> Array:
        return jnp.sum(log_prob_of_normal(outputs, x), -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        mean, log_deviation = jnp.split(outputs, 2, -1)
        noise = jax.scipy.stats.norm.ppf(jnp.clip(uniforms, 1e-6, 1 - 1e-6))
        return jnp.clip(clamped(mean, log_deviation).sample(noise), -1, 1)

    def mean(outputs: Array) -> Array:
        return jnp.clip(clamped(*jnp.split(outputs, 2, -1)).mean, -1, 1)

    return Likelihood(2 * channels, log_prob, draw, channels, mean)
