"""DDIM (Song, Meng & Ermon 2021): the non-Markovian family with any eta, over any subset of the steps."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.samplers.common import Step, Trace, noise, shorten, walk
from jgen.schedules import Schedule, at
from jgen.types import Array, Key, Predict, Prediction


def ddim_step(x: Array, x0: Array, alpha_bar: Array, alpha_bar_prev: Array, z: Array, eta: Any = 0.0) -> Array:
    """x_{t-1} from x_t and the predicted x_0. DDIM eq. 12, with sigma of eq. 16 times eta; z is standard normal.

    eps is re-derived from x_0, so that a clipped x_0 stays consistent with the direction to x_t.
    """
    eps = (x - jnp.sqrt(alpha_bar) * x0) / jnp.sqrt(1 - alpha_bar)
    variance = (1 - alpha_bar_prev) / (1 - alpha_bar) * (1 - alpha_bar / alpha_bar_prev)
    sigma = eta * jnp.sqrt(variance)
    direction = jnp.sqrt(jnp.maximum(1 - alpha_bar_prev - sigma**2, 0.0)) * eps
    return jnp.sqrt(alpha_bar_prev) * x0 + direction + sigma * z


def ddim(
    predict: Predict,
    schedule: Schedule,
    x: Array,
    keys: Key,
    *,
    timesteps: int | Sequence[int] | np.ndarray | None = 50,
    eta: float = 0.0,
    trace: Trace | None = None,
) -> Any:
    """Images [B, H, W, C] from noise x of that shape, by DDIM.

    keys [B]: one per image (`image_keys`). timesteps: how many, evenly spaced, or the increasing indices themselves;
    None walks the whole chain. eta 0 is deterministic, 1 is the ancestral sampler with the small variance.
    trace: called as trace(x, x0) after each step; its results are stacked and returned as a second value.
    Raises UserError for step counts outside 1..T.
    """
    chain = shorten(schedule, timesteps)

    def update(x: Array, prediction: Prediction, step: Step) -> Array:
        a, prev = at(chain.alpha_bar, step.index, 0), at(chain.alpha_bar_prev, step.index, 0)
        z = noise(keys, x.shape[1:], step.index) if eta else jnp.zeros_like(x)
        return ddim_step(x, prediction.x0, a, prev, z, eta)

    return walk(update, predict, chain, x, trace)
