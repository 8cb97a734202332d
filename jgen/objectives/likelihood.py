"""Likelihoods of pixels: what a network's outputs say of the 8-bit values, and how to draw from it.

All are in nats, over images in [-1, 1] with v levels at -1 + 2 v / (levels - 1), or over codes 0..codes - 1.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen.errors import UserError
from jgen.types import Array


class Likelihood(NamedTuple):
    """outputs [..., K] of a network against pixels [..., C]."""

    outputs: int
    """K."""
    log_prob: Callable[[Array, Array], Array]
    """(outputs, pixels) -> log probability of the pixel, all its channels together [...]."""
    draw: Callable[[Array, Array], Array]
    """(outputs, uniforms in [0, 1) [..., U]) -> pixels [..., C]."""
    uniforms: int
    """U."""
    mean: Callable[[Array], Array]
    """outputs -> expected pixels [..., C]."""


def categorical(
    levels: int = 256, channels: int = 1, *, temperature: float = 1.0, top_k: int = 0, codes: bool = False
) -> Likelihood:
    """A softmax over the levels of every channel, independent of each other; over indices where `codes`.

    temperature divides the logits and top_k > 0 keeps the k most likely levels, when drawing. Raises UserError for a
    temperature that is not above 0 or a top_k out of range.
    """
    if levels < 2 or temperature <= 0 or not 0 <= top_k <= levels:
        raise UserError(f"levels={levels}, temperature={temperature}, top_k={top_k}: must be > 1, > 0 and 0..{levels}")
    values = np.arange(levels) if codes else np.linspace(-1, 1, levels)

    def logits(outputs: Array) -> Array:
        return outputs.reshape(*outputs.shape[:-1], channels, levels)

    def index(x: Array) -> Array:
        return jnp.round(x if codes else (x + 1) * ((levels - 1) / 2)).astype(jnp.int32)

    def log_prob(outputs: Array, x: Array) -> Array:
        return -jnp.sum(optax.softmax_cross_entropy_with_integer_labels(logits(outputs), index(x)), -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        return jnp.asarray(values, jnp.float32)[draw_index(logits(outputs), uniforms, temperature, top_k)]

    def mean(outputs: Array) -> Array:
        return jax.nn.softmax(logits(outputs), -1) @ jnp.asarray(values, jnp.float32)

    return Likelihood(levels * channels, log_prob, draw, channels, mean)


def draw_index(logits: Array, uniforms: Array, temperature: float = 1.0, top_k: int = 0) -> Array:
    """Indices [...] drawn from a softmax of logits [..., K] by uniforms in [0, 1) [...], never one whose logit is -inf.

    top_k > 0 keeps the k most likely ones.
    """
    z = logits / temperature
    if top_k and top_k < z.shape[-1]:
        least = jax.lax.top_k(z, top_k)[0][..., -1:]
        z = jnp.where(z < least, -jnp.inf, z)
    possible = z > -jnp.inf
    mass = jnp.cumsum(jax.nn.softmax(z, -1), axis=-1)
    reached = (mass > uniforms[..., None] * mass[..., -1:]) & possible
    last = z.shape[-1] - 1 - jnp.argmax(jnp.flip(possible, -1), -1)
    return jnp.where(jnp.any(reached, -1), jnp.argmax(reached, -1), last)


def bernoulli(channels: int = 1, low: float = -1.0) -> Likelihood:
    """One logit a channel, of the value 1 rather than `low`; pixels between them count in part (cross-entropy)."""

    def log_prob(outputs: Array, x: Array) -> Array:
        each = outputs * ((x - low) / (1 - low)) - jax.nn.softplus(outputs)
        # A sum over a last axis of one is slow on CPUs: the whole reduction then runs element by element.
        return each[..., 0] if channels == 1 else jnp.sum(each, -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        return jnp.where(uniforms < jax.nn.sigmoid(outputs), 1.0, low)

    return Likelihood(channels, log_prob, draw, channels, lambda outputs: low + (1 - low) * jax.nn.sigmoid(outputs))


def logistic_mixture(mixtures: int = 10, channels: int = 3, *, low_bit: bool = False, temperature: float = 1.0) -> Likelihood:
    """PixelCNN++'s mixture of discretised logistics, of three channels coupled linearly, or of one (arXiv:1701.05517).

    outputs: mixture logits, then for each channel means, log scales (floored at -7) and coefficients (tanh): red into
    green, red into blue, green into blue; one channel has no coefficients. low_bit: 5-bit images. Drawn values are
    clipped to [-1, 1] and not rounded; `to_level` does that. temperature scales the logistics and divides the logits.
    """
    if channels not in (1, 3) or mixtures < 1 or temperature <= 0:
        raise UserError(f"mixtures={mixtures}, channels={channels}, temperature={temperature}: must be >= 1, 1 or 3, > 0")
    m, parts = mixtures, 3 if channels == 3 else 2
    half, log_width = (1 / 31, np.log(15.5)) if low_bit else (1 / 255, np.log(127.5))

    def split(outputs: Array) -> tuple[Array, Array, Array, Array | None]:
        """(logits [..., M], means, log scales and coefficients [..., C, M])."""
        rest = outputs[..., m:].reshape(*outputs.shape[:-1], channels, parts * m)
        scales = jnp.maximum(rest[..., m : 2 * m], -7.0)
        return outputs[..., :m], rest[..., :m], scales, jnp.tanh(rest[..., 2 * m :]) if parts == 3 else None

    def coupled(means: Array, coefficients: Array | None, x: Array) -> Array:
        if coefficients is None:
            return means
        c = coefficients
        red, green = x[..., 0, None], x[..., 1, None]
        green_mean = means[..., 1, :] + c[..., 0, :] * red
        blue_mean = means[..., 2, :] + c[..., 1, :] * red + c[..., 2, :] * green
        return jnp.stack([means[..., 0, :], green_mean, blue_mean], -2)

    def log_prob(outputs: Array, x: Array) -> Array:
        logits, means, log_scales, coefficients = split(outputs)
        each = discretized_logistic(x[..., None], coupled(means, coefficients, x), log_scales, half, log_width)
        return jax.nn.logsumexp(jnp.sum(each, -2) + jax.nn.log_softmax(logits, -1), -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        """uniforms: M that choose the component by Gumbel-max, then one a channel."""
        logits, means, log_scales, coefficients = split(outputs)
        u_mix, u = (jnp.clip(x, 1e-5, 1 - 1e-5) for x in (uniforms[..., :m], uniforms[..., m:]))
        chosen = jnp.argmax(logits / temperature - jnp.log(-jnp.log(u_mix)), -1)

        def pick(x: Array) -> Array:
            return jnp.take_along_axis(x, chosen[..., None, None], -1)[..., 0]

        x = pick(means) + jnp.exp(pick(log_scales)) * temperature * (jnp.log(u) - jnp.log1p(-u))
        if coefficients is None:
            return jnp.clip(x, -1, 1)
        return couple(x, pick(coefficients), -1, lambda x: jnp.clip(x, -1, 1))

    def mean(outputs: Array) -> Array:
        logits, means, _, coefficients = split(outputs)
        weights = jax.nn.softmax(logits, -1)[..., None, :]
        if coefficients is None:
            return jnp.clip(jnp.sum(weights * means, -1), -1, 1)
        return jnp.clip(jnp.sum(weights * couple(means, coefficients, -2), -1), -1, 1)

    return Likelihood(m + channels * parts * m, log_prob, draw, m + channels, mean)


def couple(x: Array, coefficients: Array, axis: int, limit: Callable[[Array], Array] = lambda x: x) -> Array:
    """Adds red to green, and red and green to blue; the three stand along an axis, and `limit` bounds each in turn."""
    red, green, blue = jnp.moveaxis(x, axis, 0)
    c = jnp.moveaxis(coefficients, axis, 0)
    red = limit(red)
    green = limit(green + c[0] * red)
    return jnp.stack([red, green, limit(blue + c[1] * red + c[2] * green)], axis)


def discretized_logistic(
    x: Array, mean: Array, log_scale: Array, half: float, log_width: float, last: float = 0.999, least: float = 1e-12
) -> Array:
    """log of the mass that a logistic leaves in the bin x +- half; the first and last bins take the tails.

    Where the mass is too small for a difference of sigmoids it is the density times the bin (log_width: minus its log). last:
    values above it are in the last bin. least: a floor of the mass inside of the log.
    """
    inverse = jnp.exp(-log_scale)
    centred = x - mean
    plus, minus, middle = inverse * (centred + half), inverse * (centred - half), inverse * centred
    inside = jax.nn.sigmoid(plus) - jax.nn.sigmoid(minus)
    density = middle - log_scale - 2 * jax.nn.softplus(middle) - log_width
    between = jnp.where(inside > 1e-5, jnp.log(jnp.maximum(inside, least)), density)
    tails = jnp.where(x > last, -jax.nn.softplus(minus), between)
    return jnp.where(x < -0.999, plus - jax.nn.softplus(plus), tails)


def logistic(channels: int = 1) -> Likelihood:
    """A discretised logistic a channel: means, then log scales (floored at -7) (Kingma et al. 2016, arXiv:1606.04934)."""

    def log_prob(outputs: Array, x: Array) -> Array:
        mean, log_scale = jnp.split(outputs, 2, -1)
        return jnp.sum(discretized_logistic(x, mean, jnp.maximum(log_scale, -7.0), 1 / 255, float(np.log(127.5))), -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        mean, log_scale = jnp.split(outputs, 2, -1)
        u = jnp.clip(uniforms, 1e-5, 1 - 1e-5)
        return jnp.clip(mean + jnp.exp(jnp.maximum(log_scale, -7.0)) * (jnp.log(u) - jnp.log1p(-u)), -1, 1)

    return Likelihood(2 * channels, log_prob, draw, channels, lambda o: jnp.clip(o[..., :channels], -1, 1))


def gaussian(channels: int = 1, variance: float = 1.0, *, constant: bool = True) -> Likelihood:
    """N(outputs, variance) of every channel: |x - f(z)|^2 / 2c, with c the variance that trades it off against the KL.

    constant: with the log(2 pi c) / 2 that makes it a density; without, the loss as it is usually printed. Raises
    UserError for a variance that is not above 0.
    """
    if variance <= 0:
        raise UserError(f"variance={variance}: must be above 0")
    norm = 0.5 * float(np.log(2 * np.pi * variance)) if constant else 0.0

    def log_prob(outputs: Array, x: Array) -> Array:
        return -jnp.sum(0.5 / variance * jnp.square(x - outputs) + norm, -1)

    def draw(outputs: Array, uniforms: Array) -> Array:
        u = jnp.clip(uniforms, 1e-6, 1 - 1e-6)
        return outputs + float(np.sqrt(variance)) * jax.scipy.stats.norm.ppf(u)

    return Likelihood(channels, log_prob, draw, channels, lambda outputs: jnp.clip(outputs, -1, 1))


def to_level(x: Array, levels: int = 256) -> Array:
    """Values in [-1, 1] moved to the nearest of so many levels, at which 8-bit images lie."""
    return jnp.round((x + 1) * ((levels - 1) / 2)) * (2 / (levels - 1)) - 1
