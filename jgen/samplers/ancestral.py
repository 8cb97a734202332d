"""Ancestral sampling of a discrete-time diffusion model: DDPM's algorithm 2 (Ho et al. 2020), with its variances."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.reverse import Variance, reverse_log_variance, reverse_mean
from jgen.samplers.common import Step, Trace, check_keys, noise, shorten, walk
from jgen.schedules import Schedule, at
from jgen.types import Array, Key, Predict, Prediction


def ancestral_step(
    x: Array, prediction: Prediction, chain: Schedule, index: Array, z: Array, variance: Variance = "small"
) -> Array:
    """x_{t-1} ~ N(mean, variance), with z standard normal; no noise at index 0.

    A guide g moves the mean by variance * g (Dhariwal & Nichol 2021, algorithm 1).
    """
    log_variance = reverse_log_variance(chain, index, prediction.v, variance)
    mean = reverse_mean(chain, x, prediction, index)
    if prediction.guide is not None:
        tables = {"small": chain.posterior_variance, "large": chain.large_variance}
        fixed = at(tables[variance], index, 0) if variance in tables else jnp.exp(log_variance)
        mean = mean + fixed * prediction.guide
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
    trace: as in `ddim`. Raises UserError for step counts outside 2..T, and for keys and predictions that do not fit x.
    """
    check_keys(keys, x)
    chain = shorten(schedule, timesteps)
    if len(chain) == 1:
        raise UserError("timesteps=1: ancestral sampling needs at least 2 steps; ddim can do with 1")

    def update(x: Array, prediction: Prediction, step: Step) -> tuple[Array, Array]:
        z = noise(keys, x.shape[1:], step.index)
        return ancestral_step(x, prediction, chain, step.index, z, variance), prediction.x0

    return walk(update, predict, chain, x, trace)
