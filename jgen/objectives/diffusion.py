"""Objectives of discrete-time diffusion: the forward process, posteriors, and DDPM's simple loss.

Ho et al. 2020 (DDPM): q(x_t | x_0) eq. 4, posterior eq. 6-7, L_simple eq. 14. The network's output is read as the
noise ("eps"), the clean image ("x0"), the velocity v = sqrt(alpha_bar) eps - sqrt(1 - alpha_bar) x_0 ("v", Salimans & Ho
2022) or the mean of the step back ("xprev"). Every function that needs noise has a core that takes it as an argument.
"""

from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError, check_choice
from jgen.nn.precision import at_least_float32
from jgen.objectives import importance as times
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning
from jgen.schedules import Schedule, at
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, Predict, Prediction

PredictionType = Literal["eps", "x0", "v", "xprev"]
Network = Callable[[Array, Array], Array]
"""(x_t [B, H, W, C], t [B]) -> raw output [B, H, W, C], or [B, H, W, 2C] where the variance is learned too."""

Apply = Callable[..., Array]
"""(params, x_t, t, condition, *, rngs=None, train=False) -> raw output."""


def q_sample(schedule: Schedule, x0: Array, t: Array, noise: Array) -> Array:
    """x_t given x_0 and standard normal noise of its shape; t int [B] indexes the chain. DDPM eq. 4."""
    a = at(schedule.alpha_bar, t, x0.ndim)
    return jnp.sqrt(a) * x0 + at(np.sqrt(1 - schedule.alpha_bar), t, x0.ndim) * noise


def q_posterior(schedule: Schedule, x0: Array, xt: Array, t: Array) -> tuple[Array, Array]:
    """Mean [B, H, W, C] and log variance [B, 1, 1, 1] (clipped at t = 0) of q(x_{t-1} | x_t, x_0). DDPM eq. 6-7."""
    mean = at(schedule.posterior_mean_x0, t, x0.ndim) * x0 + at(schedule.posterior_mean_xt, t, x0.ndim) * xt
    return mean, at(schedule.posterior_log_variance, t, x0.ndim)


def eps_from_x0(schedule: Schedule, xt: Array, t: Array, x0: Array) -> Array:
    """The noise that x_t holds if x_0 is the clean image."""
    a = schedule.alpha_bar
    return (xt - at(np.sqrt(a), t, xt.ndim) * x0) * at(1 / np.sqrt(1 - a), t, xt.ndim)


def x0_from_eps(schedule: Schedule, xt: Array, t: Array, eps: Array) -> Array:
    """The clean image if eps is the noise in x_t."""
    a = schedule.alpha_bar
    return at(1 / np.sqrt(a), t, xt.ndim) * xt - at(np.sqrt(1 / a - 1), t, xt.ndim) * eps


def x0_from_v(schedule: Schedule, xt: Array, t: Array, v: Array) -> Array:
    """The clean image if v is the velocity at x_t."""
    a = schedule.alpha_bar
    return at(np.sqrt(a), t, xt.ndim) * xt - at(np.sqrt(1 - a), t, xt.ndim) * v


def x0_from_xprev(schedule: Schedule, xt: Array, t: Array, xprev: Array) -> Array:
    """The clean image if xprev is the posterior mean of the step back from x_t."""
    rest = at(schedule.posterior_mean_xt / schedule.posterior_mean_x0, t, xt.ndim)
    return at(1 / schedule.posterior_mean_x0, t, xt.ndim) * xprev - rest * xt


def target(schedule: Schedule, x0: Array, t: Array, noise: Array, prediction: PredictionType) -> Array:
    """The network's target at x_t. Raises UserError for a prediction that there is none of."""
    check_choice(get_args(PredictionType), prediction=prediction)
    if prediction == "eps":
        return noise
    if prediction == "x0":
        return x0
    if prediction == "xprev":
        return q_posterior(schedule, x0, q_sample(schedule, x0, t, noise), t)[0]
    a = schedule.alpha_bar
    return at(np.sqrt(a), t, x0.ndim) * noise - at(np.sqrt(1 - a), t, x0.ndim) * x0


def predictor(network: Network, schedule: Schedule, prediction: PredictionType = "eps") -> Predict:
    """The function that samplers take, from a network's raw output.

    `schedule` is the whole chain the network was trained on, or, as "xprev" must have it, the shortened one that is
    sampled; t is one of its timesteps. An output with twice the channels of x carries the learned variance in its second
    half, which `Prediction.v` hands on untouched. Raises UserError for a prediction that there is none of.
    """
    check_choice(get_args(PredictionType), prediction=prediction)
    whole = np.array_equal(schedule.timesteps, np.arange(len(schedule)))

    def predict(xt: Array, t: Array) -> Prediction:
        out = network(xt, t)
        mean, v = (out, None) if out.shape[-1] == xt.shape[-1] else jnp.split(out, 2, axis=-1)
        t = t if whole else jnp.searchsorted(jnp.asarray(schedule.timesteps), t)
        if prediction == "xprev":
            return Prediction(x0_from_xprev(schedule, xt, t, mean), v, mean)
        if prediction == "eps":
            return Prediction(x0_from_eps(schedule, xt, t, mean), v)
        return Prediction(mean if prediction == "x0" else x0_from_v(schedule, xt, t, mean), v)

    return predict


def simple_terms(
    network: Network, schedule: Schedule, x0: Array, t: Array, noise: Array, prediction: PredictionType = "eps"
) -> Array:
    """DDPM's L_simple (eq. 14) per image [B]: the mean over pixels of the squared error, for the given draws.

    t int [B] indexes the chain; the network is conditioned on `schedule.timesteps[t]`.
    """
    out = network(q_sample(schedule, x0, t, noise), jnp.asarray(schedule.timesteps)[t])
    error = at_least_float32(out[..., : x0.shape[-1]]) - target(schedule, x0, t, noise, prediction)
    return jnp.mean(jnp.square(error), axis=tuple(range(1, x0.ndim)))


Terms = Callable[[Network, Array, Array, Array], tuple[Array, Metrics]]
"""(network, x0, t [B], noise) -> (loss of every image [B], metrics)."""


def sampled(
    apply: Apply,
    schedule: Schedule,
    terms: Terms,
    *,
    player: str = "net",
    conditioning: Conditioning = UNCONDITIONAL,
    train: bool = True,
    importance: bool = False,
) -> LossFn:
    """The mean of `terms` as a training loss: t uniform over the chain, noise normal, both drawn from the key.

    `apply` takes params[player], and the condition that `conditioning` makes of the batch. train=False turns dropout off.
    importance: t is drawn, and its loss weighed, by `jgen.objectives.importance`, whose state is extra["importance"].
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x0 = batch["image"]
        time_key, noise_key, dropout_key, label_key = jax.random.split(key, 4)
        noise = jax.random.normal(noise_key, x0.shape, x0.dtype)
        weight = jnp.ones(x0.shape[:1])
        if importance:
            t, weight = times.draw(extra["importance"], time_key, x0.shape[:1])
        else:
            t = jax.random.randint(time_key, x0.shape[:1], 0, len(schedule))
        condition = conditioning.draw(label_key, batch, train)

        def network(x: Array, time: Array) -> Array:
            return apply(params[player], x, time, condition, rngs={"dropout": dropout_key}, train=train)

        values, metrics = terms(network, x0, t, noise)
        if importance and train:
            extra = {**extra, "importance": times.update(extra["importance"], t, jax.lax.stop_gradient(values))}
        return jnp.mean(weight * values), (extra, metrics)

    return loss


def simple(
    apply: Apply,
    schedule: Schedule,
    prediction: PredictionType = "eps",
    *,
    weights: np.ndarray | None = None,
    **how: Any,
) -> LossFn:
    """L_simple as a training loss, each step of the chain weighed by `weights` [T] if given; how: as of `sampled`."""

    def terms(network: Network, x0: Array, t: Array, noise: Array) -> tuple[Array, Metrics]:
        values = simple_terms(network, schedule, x0, t, noise, prediction)
        return values if weights is None else at(weights, t, 1) * values, {}

    return sampled(apply, schedule, terms, **how)


def min_snr(schedule: Schedule, prediction: PredictionType = "eps", gamma: float = 5.0) -> np.ndarray:
    """Weights [T] of min-SNR-gamma (Hang et al. 2023, arXiv:2303.09556, section 3.4): min(SNR, gamma) of the clean image."""
    snr = schedule.alpha_bar / (1 - schedule.alpha_bar)
    per = {"x0": 1.0, "eps": snr, "v": snr + 1}
    if prediction not in per or gamma <= 0:
        raise UserError(f"prediction={prediction}, gamma={gamma}: must be among {', '.join(per)}, and above 0")
    return np.minimum(snr, gamma) / per[prediction]


def loss_by_time(
    network: Network, schedule: Schedule, x0: Array, key: Key, times: Array, prediction: PredictionType = "eps"
) -> Array:
    """L_simple of a batch at each of the given times [K] -> [K], with fresh noise for each."""

    def one(_: None, row: tuple[Array, Array]) -> tuple[None, Array]:
        i, t = row
        noise = jax.random.normal(jax.random.fold_in(key, i), x0.shape, x0.dtype)
        terms = simple_terms(network, schedule, x0, jnp.broadcast_to(t, x0.shape[:1]), noise, prediction)
        return None, jnp.mean(terms)

    return jax.lax.scan(one, None, (jnp.arange(len(times)), times))[1]
