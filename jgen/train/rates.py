"""Rates over the steps of a run: of learning, and of the weights' moving average."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen.errors import UserError
from jgen.train.step import Phase
from jgen.types import Array


def warmup_cosine(rate: float, steps: int, warmup: int = 0, final: float = 0.0, first: float = 0.0) -> optax.Schedule:
    """Linear from rate x first to `rate` over `warmup` steps (at most half of all), then a cosine to rate x final."""
    steps = max(steps, 2)
    return optax.warmup_cosine_decay_schedule(rate * first, rate, min(warmup, steps // 2), steps, rate * final)


def decaying(
    rate: float, steps: int, warmup: int = 0, final: float = 0.0, kind: Literal["cosine", "linear", "exponential"] = "cosine"
) -> optax.Schedule:
    """Linear from 0 to `rate` over `warmup` steps (at most half of them), then down to rate x final by the last step.

    Raises UserError for an exponential decay to 0, which never comes there.
    """
    if kind == "cosine":
        return warmup_cosine(rate, steps, warmup, final)
    if kind == "exponential" and not final:
        raise UserError("final_learning_rate=0: an exponential decay never comes to 0; must be above 0, or decay linear")
    steps = max(steps, 2)
    warmup = min(warmup, steps // 2)
    if kind == "linear":
        after = optax.linear_schedule(rate, rate * final, steps - warmup)
    else:
        after = optax.exponential_decay(rate, steps - warmup, final)
    return optax.join_schedules([optax.linear_schedule(0.0, rate, warmup), after], [warmup]) if warmup else after


def ramped(decay: float) -> Callable[[Array], Array]:
    """An EMA decay reached as (1 + step) / (10 + step) grows, so that early weights are soon forgotten."""
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))


def half_cosine(
    images: Array | float, base: float, final: float, total: float, *, warmup: float = 0, low: float = 0.0, hold: float = 0
) -> Array:
    """R3GAN's schedules by the number of images so far (Huang et al. 2024, arXiv:2501.05441): half a cosine to `final`.

    Linear from `low` to `base` over the first `warmup` images, `base` for `hold` more, then a cosine that comes to `final` at
    `total` images and stays there.
    """
    start = warmup + hold
    share = jnp.clip((images - start) / max(total - start, 1e-12), 0.0, 1.0)
    value = final + 0.5 * (base - final) * (1 + jnp.cos(jnp.pi * share))
    return jnp.where(images < warmup, low + (base - low) * images / warmup, value) if warmup else value


Rate = float | Callable[[Any], Any]
"""A learning rate: a number, or a function of the updates so far."""


class Rated(optax.GradientTransformation):
    """An optimizer that says what its learning rate is, for the logs."""

    rate: Rate


def rated(transform: optax.GradientTransformation, rate: Rate) -> Rated:
    """The optimizer itself, with its rate beside it for `learning_rates`: a number, or a schedule of its updates so far."""
    found = Rated(*transform)
    found.rate = rate
    return found


def rated_adam(rate: Rate, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> Rated:
    """Adam, which says what its learning rate is."""
    return rated(optax.adam(rate, b1, b2, eps), rate)


def learning_rates(
    optimizers: Mapping[str, optax.GradientTransformation], phases: Sequence[Phase], steps: int
) -> dict[str, np.ndarray]:
    """{"learning_rate/PLAYER": float32 [steps]}: the rate of each player's newest update, where its optimizer is `rated`.

    A schedule counts updates, not steps: a player that is updated every fifth step goes through it as slowly.
    """
    found, done = {}, np.arange(1, steps + 1)
    for name, optimizer in optimizers.items():
        if isinstance(optimizer, Rated):
            updates = sum(-(-done // phase.every) for phase in phases if phase.player == name)
            schedule = optimizer.rate if callable(optimizer.rate) else optax.constant_schedule(optimizer.rate)
            rate = jax.vmap(lambda n, schedule=schedule: jnp.asarray(schedule(n), jnp.float32))(jnp.asarray(updates - 1))
            found[f"learning_rate/{name}"] = np.asarray(rate)
    return found
