"""DDIM (Song, Meng & Ermon 2021): the non-Markovian family with any eta, over any subset of the steps."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.samplers.common import Step, Trace, check_eta, noise, predicted, shorten, walk
from jgen.schedules import Schedule, at, guided_x0
from jgen.types import Array, Key, Predict, Prediction


def ddim_step(
    x: Array, x0: Array, alpha_bar: Array, alpha_bar_prev: Array, z: Array, eta: Any = 0.0, noise: Array | None = None
) -> Array:
    """x_{t-1} from x_t and the predicted x_0. DDIM eq. 12, with sigma of eq. 16 times eta; z is standard normal.

    eps is re-derived from x_0, so that a clipped x_0 stays consistent with the direction to x_t. noise: 1 - alpha_bar, of
    tables in float64: where it is least, float32 rounds it to 0.
    """
    noise = 1 - alpha_bar if noise is None else noise
    eps = (x - jnp.sqrt(alpha_bar) * x0) / jnp.sqrt(noise)
    variance = (1 - alpha_bar_prev) / noise * (1 - alpha_bar / alpha_bar_prev)
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
    last: float = 1.0,
    trace: Trace | None = None,
) -> Any:
    """Images [B, H, W, C] from noise x of that shape, by DDIM.

    keys [B]: one per image (`image_keys`). timesteps: how many, evenly spaced, or the increasing indices themselves;
    None walks the whole chain. eta 0 is deterministic, 1 is the ancestral sampler with the small variance. last: alpha_bar
    to end at; latent diffusion ends at the chain's first, not at 1. A guide g of the prediction moves eps by
    -sqrt(1 - alpha_bar) g (Dhariwal & Nichol 2021, algorithm 2).
    trace: called as trace(x, x0) after each step; its results are stacked and returned as a second value.
    Raises UserError for step counts outside 1..T, an eta outside 0..1, and keys or predictions that do not fit x.
    """
    check_eta(eta, keys, x)
    chain = shorten(schedule, timesteps)

    before = np.append(last, chain.alpha_bar[:-1])

    def update(x: Array, prediction: Prediction, step: Step) -> tuple[Array, Array]:
        a, prev = at(chain.alpha_bar, step.index, 0), at(before, step.index, 0)
        z = noise(keys, x.shape[1:], step.index) if eta else jnp.zeros_like(x)
        x0 = guided_x0(prediction, x, a)
        return ddim_step(x, x0, a, prev, z, eta, at(1 - chain.alpha_bar, step.index, 0)), x0

    return walk(update, predict, chain, x, trace)


def ddim_invert(
    predict: Predict,
    schedule: Schedule,
    x: Array,
    *,
    timesteps: int | Sequence[int] | np.ndarray | None = 50,
    beyond: bool = False,
    trace: Trace | None = None,
) -> Any:
    """The noise [B, H, W, C] from which `ddim` of the same timesteps draws the image x: its ODE, run upwards.

    It ends at the chain's last level, where `ddim` begins; with `beyond`, as the authors' code, a step further at
    alpha_bar 0. The round trip is as good as the steps are many.
    """
    chain = shorten(schedule, timesteps)
    after = chain.alpha_bar_next
    count = len(chain) - (not beyond)
    steps = Step(jnp.arange(count), jnp.asarray(chain.timesteps[:count], jnp.int32))

    def body(x: Array, step: Step) -> tuple[Array, Any]:
        a, up = at(chain.alpha_bar, step.index, 0), at(after, step.index, 0)
        x0 = guided_x0(predicted(predict, x, step.time), x, a)
        eps = (x - jnp.sqrt(a) * x0) / jnp.sqrt(at(1 - chain.alpha_bar, step.index, 0))
        x = (jnp.sqrt(up) * x0 + jnp.sqrt(1 - up) * eps).astype(x.dtype)
        return x, None if trace is None else trace(x, x0)

    x, traces = lax.scan(body, x, steps)
    return x if trace is None else (x, traces)
