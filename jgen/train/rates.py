"""Rates over the steps of a run: of learning, and of the weights' moving average."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from jgen.types import Array


def warmup_cosine(rate: float, steps: int, warmup: int = 0, final: float = 0.0, first: float = 0.0) -> optax.Schedule:
    """Linear from rate x first to `rate` over `warmup` steps (at most half of all), then a cosine to rate x final."""
    steps = max(steps, 2)
    return optax.warmup_cosine_decay_schedule(rate * first, rate, min(warmup, steps // 2), steps, rate * final)


def ramped(decay: float) -> Callable[[Array], Array]:
    """An EMA decay reached as (1 + step) / (10 + step) grows, so that early weights are soon forgotten."""
    return lambda step: jnp.minimum(decay, (1 + step) / (10 + step))
