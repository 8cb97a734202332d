"""Ancestral sampling of a discrete-time diffusion model: DDPM's algorithm 2 (Ho et al. 2020), with its variances."""

from collections.abc import Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.samplers.common import Step, Trace, noise, shorten, walk
from jgen.schedules import Schedule, at
from jgen.types import Array, Key, Predict, Prediction

Variance = Literal["small", "large", "learned_range", "learned"]


def reverse_log_variance(chain: Schedule, index: Array, v: Array | None, variance: Variance) -> Array:
    """Log variance of the step back.

    "small" is the posterior's beta-tilde and "large" is beta (DDPM section 3.2); "learned_range" interpolates their
    logarithms by the network's v in [-1, 1] (Nichol & Dhariwal 2021, eq. 15); "learned" is v itself.
    """
    small, large = at(chain.posterior_log_variance, index, 0), at(np.log(chain.betas), index, 0)
    if variance == "small":
        return small
    if variance == "large":
        return at(chain.large_log_variance, index, 0)
    if v is None:
        raise UserError(f"variance={variance}: the network has no variance output; use small or large")
    return v if variance == "learned" else small + (v + 1) / 2 * (large - small)


def ancestral_step(x: Array, x0: Array, chain: Schedule, index: Array, log_variance: Array, z: Array) -> Array:
    """x_{t-1} ~ N(posterior mean of (x_0, x_t), exp(log_variance)), with z standard normal; no noise at index 0."""
    mean = at(chain.posterior_mean_x0, index, 0) * x0 + at(chain.posterior_mean_xt, index, 0) * x
    return mean + jnp.where(index > 0, jnp.exp(0.5 * log_variance), 0.0) * z


def ancestral(
    predict: Predict,
    schedule: Schedule,
    x: Array,
    keys: Key,
    *,
    timesteps: int | Sequence[int] | np.ndarray | None = None,
    variance: Variance = "small",
    trace: Trace | None = None,
) -> Any:
    """Images [B, H, W, C] from noise x of that shape, by DDPM's ancestral sampling.

    keys [B]: one per image (`image_keys`). timesteps: None walks the whole chain, otherwise as in `ddim`.
    trace: as in `ddim`. Raises UserError for step counts outside 1..T.
    """
    chain = shorten(schedule, timesteps)
    if len(chain) == 1:
        raise UserError("timesteps=1: ancestral sampling needs at least 2 steps; ddim can do with 1")

    def update(x: Array, prediction: Prediction, step: Step) -> Array:
        log_variance = reverse_log_variance(chain, step.index, prediction.v, variance)
        z = noise(keys, x.shape[1:], step.index)
        return ancestral_step(x, prediction.x0, chain, step.index, log_variance, z)

    return walk(update, predict, chain, x, trace)
