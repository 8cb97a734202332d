"""Guidance as transforms of functions: of the predictor of the discrete coordinates, or the denoiser of the continuous ones.

Whatever sampler takes the function is then guided. Classifier guidance: Dhariwal & Nichol 2021 (arXiv:2105.05233).
Classifier-free guidance: Ho & Salimans 2022 (arXiv:2207.12598). Interval: Kynkäänniemi et al. 2024 (arXiv:2404.07724).
Inpainting by replacement: Lugmayr et al. 2022 (RePaint, arXiv:2201.09865) and Song et al. 2021 (arXiv:2011.13456).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.samplers.common import F
from jgen.types import Array, Denoise, Predict, Prediction, as_prediction

C = TypeVar("C")
LogProbability = Callable[[Array, Array], Array]
"""(x_t [B, H, W, C], t or sigma [B]) -> log p(wanted | x_t) [B]."""


def classifier(predict: Predict, log_probability: LogProbability, scale: float = 1.0) -> Predict:
    """Steers to what a noisy classifier finds likely: its gradient, times scale, is added to the score.

    The ancestral sampler moves its mean by scale * variance * gradient, DDIM its noise (the paper's algorithms 1 and 2).
    log_probability's gradient is taken at x_t. Clip the predictor before it is guided, as the authors do.
    """

    def guided(x: Array, t: Array) -> Prediction:
        prediction = as_prediction(predict(x, t))
        own = scale * log_gradient(log_probability, x, t)
        return prediction._replace(guide=own if prediction.guide is None else prediction.guide + own)

    return guided


def classifier_denoiser(denoise: Denoise, log_probability: LogProbability, scale: float = 1.0) -> Denoise:
    """Classifier guidance in continuous coordinates: D + scale * sigma^2 * gradient at x."""

    def guided(x: Array, sigma: Array) -> Array:
        level = expand_dims_like(jnp.square(sigma), x)
        return denoise(x, sigma) + scale * level * log_gradient(log_probability, x, sigma)

    return guided


def log_gradient(log_probability: LogProbability, x: Array, t: Array) -> Array:
    """The gradient of log p(wanted | x) at every image of x."""
    return jax.grad(lambda x: jnp.sum(log_probability(x, t)))(x)


def mix(conditional: Array, unconditional: Array, scale: float | Array) -> Array:
    """unconditional + scale * (conditional - unconditional)."""
    return unconditional + scale * (conditional - unconditional)


def scale_of(w: float) -> float:
    """The `scale` of `cfg` that is Ho & Salimans' weight w, by which (1 + w) conditional - w unconditional are mixed.

    >>> scale_of(0.0)
    1.0
    """
    return 1.0 + w


def cfg(conditional: F, unconditional: F, scale: float) -> F:
    """Classifier-free guidance: u + scale * (c - u) of two functions (predictors, denoisers, velocity fields, raw networks).

    scale 1 is the conditional function alone, 0 the unconditional one; the paper's weight w is scale - 1 (`scale_of`). To mix
    clean images is to mix the noise, the score or v, since each is an affine function of the clean image at a given x_t.
    Two calls; `cfg_batched` makes one of twice the batch.
    """

    def guided(x: Array, t: Array) -> Any:
        return _mixed(conditional(x, t), unconditional(x, t), scale)

    return guided  # pyright: ignore[reportReturnType]


MANY = 16
"""Images a device, from which a CPU makes guidance's two calls in turn: the arrays of both at once would leave its cache."""


def cfg_batched(call: Callable[[Array, Array, C], Any], condition: C, null: C, scale: float) -> Any:
    """Classifier-free guidance with both calls as one of twice the batch: a function of (x, t).

    call(x [2B], t [2B], condition [2B]): condition and null are trees of arrays [B, ...], such as labels or a `Condition`.
    CPUs make two calls in turn instead where there are many images, for less time and half the memory.
    """

    def guided(x: Array, t: Array) -> Any:
        in_turn = jax.default_backend() == "cpu" and len(x) >= MANY * jax.device_count()
        both = jax.tree.map(lambda own, none: jnp.stack([own, none]), condition, null)
        conditional, unconditional = (_calls_in_turn if in_turn else _calls_at_once)(call, x, t, both)
        return _mixed(conditional, unconditional, scale)

    return guided


def _calls_in_turn(call: Callable[[Array, Array, C], Any], x: Array, t: Array, both: C) -> tuple[Any, ...]:
    """call(x, t, condition) for each of two conditions [2, B, ...]."""
    found = jax.lax.map(lambda condition: call(x, t, condition), both)
    return tuple(jax.tree.map(lambda v, i=i: v[i], found) for i in range(2))


def _calls_at_once(call: Callable[[Array, Array, C], Any], x: Array, t: Array, both: C) -> tuple[Any, ...]:
    """One call for two conditions [2, B, ...]."""
    # An image's two calls are neighbours, so that both stay on the image's device.
    beside = jax.tree.map(lambda v: jnp.moveaxis(v, 0, 1).reshape(-1, *v.shape[2:]), both)
    found = call(jnp.repeat(x, 2, 0), jnp.repeat(t, 2, 0), beside)
    return tuple(jax.tree.map(lambda v, i=i: v.reshape(-1, 2, *v.shape[1:])[:, i], found) for i in range(2))


def _mixed(c: Any, u: Any, scale: float) -> Any:
    if isinstance(c, Prediction):
        return c._replace(
            x0=mix(c.x0, u.x0, scale), mean=None if c.mean is None or u.mean is None else mix(c.mean, u.mean, scale)
        )
    return mix(c, u, scale)


def interval(
    guided: F, plain: F, low: float, high: float, level: Callable[[Array], Array] = lambda t: t, by_image: bool = False
) -> F:
    """`guided` where low <= level(t) <= high, else `plain`: guidance only at the levels where it helps.

    level: t (or sigma) itself unless given. Only one of the two is called, as t is the same for all images; under the adaptive
    samplers, where each image has its own, say by_image, which calls both. Raises UserError unless low < high.
    """
    if not low < high:
        raise UserError(f"interval: low={low} must be below high={high}")

    def between(x: Array, t: Array) -> Any:
        now = level(t)
        inside = (now >= low) & (now <= high)
        if by_image:
            choose = lambda a, b: jnp.where(expand_dims_like(inside, a), a, b)  # noqa: E731
            return jax.tree.map(choose, guided(x, t), plain(x, t))
        return jax.lax.cond(inside[0], guided, plain, x, t)

    return between  # pyright: ignore[reportReturnType]


def replace_known(denoise: F, known: Array, mask: Array) -> F:
    """Inpainting: the clean image is taken from `known` [B, H, W, C] where mask (bool [B or 1, H, W, 1]) says so.

    Every step then pulls those pixels to their values, noised to the level at hand by the sampler itself. With
    `jgen.samplers.repaint` the other pixels agree with them better, for more calls. A guide has no say in known pixels, and
    the mean of a network that predicts it gives way to the one that follows from the clean image.
    """

    def replaced(x: Array, t: Array) -> Any:
        found = denoise(x, t)
        if not isinstance(found, Prediction):
            return jnp.where(mask, known, found)
        guide = None if found.guide is None else jnp.where(mask, 0.0, found.guide)
        return found._replace(x0=jnp.where(mask, known, found.x0), mean=None, guide=guide)

    return replaced  # pyright: ignore[reportReturnType]
