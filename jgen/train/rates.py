"""Rates over the steps of a run: of learning, and of the weights' moving average."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
import optax

from jgen.errors import UserError
from jgen.types import Array


def warmup_cosine(rate: float, steps: int, warmup: int = 0, final: float = 0.0) -> optax.Schedule:
    """Linear from 0 to `rate` over `warmup` steps (at most half of them), then a cosine to rate x final by the last."""
    steps = max(steps, 2)
    return optax.warmup_cosine_decay_schedule(0.0, rate, min(warmup, steps // 2), steps, rate * final)


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
