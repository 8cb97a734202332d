"""The variational bound of discrete-time diffusion, term by term, and the objectives that learn variances by it.

Ho et al. 2020 (DDPM, eq. 5), Nichol & Dhariwal 2021 (improved DDPM, arXiv:2102.09672, eq. 4-7 and 15-16). Terms are in bits
per dimension. The last step's likelihood is a Gaussian over the 8-bit bins, with the reference code's tanh approximation.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jgen.objectives.diffusion import (
    Apply,
    Network,
    PredictionType,
    eps_from_x0,
    predictor,
    q_posterior,
    q_sample,
    sampled,
    target,
)
from jgen.reverse import Variance, reverse_log_variance, reverse_mean
from jgen.schedules import Schedule
from jgen.types import Array, LossFn, Metrics, Predict, as_prediction


def normal_kl(mean_1: Array, log_variance_1: Array, mean_2: Any, log_variance_2: Any) -> Array:
    """KL(N_1 || N_2) of diagonal Gaussians, element by element, in nats."""
    ratio = jnp.exp(log_variance_1 - log_variance_2)
    return 0.5 * (log_variance_2 - log_variance_1 - 1 + ratio + jnp.square(mean_1 - mean_2) * jnp.exp(-log_variance_2))


def approximate_cdf(x: Array) -> Array:
    """The distribution function of the standard normal, by tanh."""
    return 0.5 * (1 + jnp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def discretized_gaussian(x: Array, mean: Array, log_deviation: Array) -> Array:
    """log p of 8-bit values in [-1, 1] under a Gaussian over their bins, the outer ones open; element by element, in nats."""
    inverse = jnp.exp(-log_deviation)
    above, below = (approximate_cdf(inverse * (x - mean + side / 255)) for side in (1, -1))

    def log(p: Array) -> Array:
        return jnp.log(jnp.maximum(p, 1e-12))

    return jnp.where(x < -0.999, log(above), jnp.where(x > 0.999, log(1 - below), log(above - below)))


def _mean(x: Array) -> Array:
    return jnp.mean(x, axis=tuple(range(1, x.ndim)))


def vb_terms(
    predict: Predict, schedule: Schedule, x0: Array, xt: Array, t: Array, variance: Variance = "learned_range"
) -> tuple[Array, Array]:
    """(term t of the bound [B] in bits/dim, predicted x_0): KL(q(x_{t-1} | x_t, x_0) || p), at t = 0 the decoder's -log p.

    t int [B] indexes the chain. predict: clipped for an evaluation, not in training.
    """
    true_mean, true_log_variance = q_posterior(schedule, x0, xt, t)
    prediction = as_prediction(predict(xt, jnp.asarray(schedule.timesteps)[t]))
    mean = reverse_mean(schedule, xt, prediction, t)
    log_variance = jnp.broadcast_to(reverse_log_variance(schedule, t, prediction.v, variance), x0.shape)
    kl = _mean(normal_kl(true_mean, jnp.broadcast_to(true_log_variance, x0.shape), mean, log_variance))
    nll = -_mean(discretized_gaussian(x0, mean, 0.5 * log_variance))
    return jnp.where(t == 0, nll, kl) / math.log(2), prediction.x0


def prior_bits(schedule: Schedule, x0: Array) -> Array:
    """KL(q(x_T | x_0) || N(0, 1)) [B] in bits/dim."""
    a = schedule.alpha_bar[-1]
    log_variance = jnp.full(x0.shape, math.log1p(-a), x0.dtype)
    return _mean(normal_kl(math.sqrt(a) * x0, log_variance, 0.0, 0.0)) / math.log(2)


def hybrid_terms(
    network: Network,
    schedule: Schedule,
    x0: Array,
    t: Array,
    noise: Array,
    prediction: PredictionType = "eps",
    variance: Variance = "learned_range",
    weight: float = 1.0,
) -> tuple[Array, Metrics]:
    """L_simple + weight x bound (eq. 16) per image [B], and both; the bound moves the variance alone, not the mean.

    A network without a variance output has L_simple only.
    """
    xt = q_sample(schedule, x0, t, noise)
    out = network(xt, jnp.asarray(schedule.timesteps)[t]).astype(x0.dtype)
    mean, v = out[..., : x0.shape[-1]], out[..., x0.shape[-1] :]
    mse = _mean(jnp.square(mean - target(schedule, x0, t, noise, prediction)))
    if not v.shape[-1]:
        return mse, {"mse": mse}
    frozen = jnp.concatenate([lax.stop_gradient(mean), v], -1)
    vb, _ = vb_terms(predictor(lambda x, t: frozen, schedule, prediction), schedule, x0, xt, t, variance)
    return mse + weight * vb, {"mse": mse, "vb": vb}


def hybrid(
    apply: Apply, schedule: Schedule, prediction: PredictionType = "eps", *, weight: float | None = None, **how: Any
) -> LossFn:
    """Improved DDPM's L_hybrid with learned variances; weight: 0.001 T unless given, so that the bound's sum counts 0.001.
    how: as of `jgen.objectives.diffusion.sampled`."""
    scale = len(schedule) / 1000 if weight is None else weight

    def terms(network: Network, x0: Array, t: Array, noise: Array) -> tuple[Array, Metrics]:
        values, parts = hybrid_terms(network, schedule, x0, t, noise, prediction, "learned_range", scale)
        return values, {name: jnp.mean(part) for name, part in parts.items()}

    return sampled(apply, schedule, terms, **how)


def vlb(
    apply: Apply,
    schedule: Schedule,
    prediction: PredictionType = "eps",
    *,
    variance: Variance = "learned_range",
    **how: Any,
) -> LossFn:
    """L_vlb in bits/dim: T x the mean term, without the prior's, which has no weights. how: as of
    `jgen.objectives.diffusion.sampled`; improved DDPM trains it with importance=True."""

    def terms(network: Network, x0: Array, t: Array, noise: Array) -> tuple[Array, Metrics]:
        xt = q_sample(schedule, x0, t, noise)
        predict = predictor(network, schedule, prediction)
        return len(schedule) * vb_terms(predict, schedule, x0, xt, t, variance)[0], {}

    return sampled(apply, schedule, terms, **how)


class Bound(NamedTuple):
    """The bound of a batch, in bits/dim; columns from t = T - 1 down to 0."""

    total: Array
    """[B]: the sum of `terms` and the prior's."""
    prior: Array
    """[B]."""
    terms: Array
    """[B, T]."""
    x0_error: Array
    """[B, T]: mean square of predicted minus true clean image."""
    eps_error: Array
    """[B, T]: the same of the noise that follows from it."""


def bound(
    predict: Predict,
    schedule: Schedule,
    x0: Array,
    noise: Callable[[Array], Array],
    variance: Variance = "learned_range",
) -> Bound:
    """Every term of the bound, one network call each in a scan; noise(t) gives the draw of step t, of x0's shape."""

    def one(_: None, t: Array) -> tuple[None, tuple[Array, Array, Array]]:
        times, z = jnp.broadcast_to(t, x0.shape[:1]), noise(t)
        xt = q_sample(schedule, x0, times, z)
        value, found = vb_terms(predict, schedule, x0, xt, times, variance)
        eps = eps_from_x0(schedule, xt, times, found)
        return None, (value, _mean(jnp.square(found - x0)), _mean(jnp.square(eps - z)))

    _, (terms, x0_error, eps_error) = lax.scan(one, None, jnp.arange(len(schedule))[::-1])
    prior = prior_bits(schedule, x0)
    return Bound(jnp.sum(terms, 0) + prior, prior, terms.T, x0_error.T, eps_error.T)
