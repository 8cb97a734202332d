"""Helpers of every family's stages: a checked config, an optimizer, and evaluations that are means over held-out batches."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import jax
import optax

from jgen.config import DataConfig, OptimizerConfig, check
from jgen.data import resolve
from jgen.errors import UserError
from jgen.train.rates import decaying, rated
from jgen.train.stage import Evaluate, Experiment
from jgen.types import Array, Batch, Extra, Key, LossFn, Params

T = TypeVar("T")

__all__ = [
    "Experiment", "adam", "adam_rate", "both", "clipped", "mean_loss", "mean_metrics", "mean_over", "refuse_dequantized",
    "resolved",
]  # fmt: skip


def resolved(config: T) -> T:
    """An experiment's config with every option checked against its range, and the data's shape and classes filled in.

    Raises UserError for the first option that can't be.
    """
    check(config)
    data: Any = getattr(config, "data")  # noqa: B009
    return dataclasses.replace(config, data=resolve(data))  # pyright: ignore[reportArgumentType, reportCallIssue]


def refuse_dequantized(data: DataConfig, why: str) -> None:
    """Raises UserError for images with noise in their grey levels, which a model of the levels themselves can't take."""
    if data.dequantize:
        raise UserError(f"data.dequantize=True: {why}")


def adam_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """The learning rate over `steps`: a linear warm-up, then a decay."""
    return decaying(config.learning_rate, steps, config.warmup, config.final_learning_rate, config.decay)


def clipped(transform: optax.GradientTransformation, clip: float) -> optax.GradientTransformation:
    """An optimizer of gradients whose norm is at most `clip`; 0 leaves them as they are."""
    return optax.chain(optax.clip_by_global_norm(clip) if clip else optax.identity(), transform)


def adam(config: OptimizerConfig, steps: int, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Adam with clipped gradients, its rate warmed up and then falling to the end of `steps`; AdamW where weights decay."""
    rate, betas = adam_rate(config, steps), (config.beta_1, config.beta_2)
    plain = optax.adamw(rate, *betas, weight_decay=weight_decay) if weight_decay else optax.adam(rate, *betas)
    return rated(clipped(plain, config.clip), rate)


def mean_loss(loss: LossFn) -> Evaluate:
    """The evaluation that is a loss, averaged over held-out batches; the weights are arguments of its program."""
    run = jax.jit(lambda params, extra, key, batch: loss(params, extra, key, batch)[0])

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        return {"loss": sum(run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count}

    return evaluate


def mean_metrics(*losses: LossFn) -> Evaluate:
    """The evaluation that is all that these losses report, averaged over held-out batches."""

    @jax.jit
    def run(params: Params, extra: Extra, key: Key, batch: Batch) -> dict[str, Array]:
        found: dict[str, Array] = {}
        for loss in losses:
            found |= loss(params, extra, key, batch)[1][1]
        return found

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        found = [run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        return {name: sum(f[name] for f in found) / count for name in found[0]}

    return evaluate


def both(first: Evaluate, second: Evaluate) -> Evaluate:
    """Two evaluations of the same images."""

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> Mapping[str, Any]:
        kept = [next(batches) for _ in range(count)]
        return {**first(params, extra, key, iter(kept), count), **second(params, extra, key, iter(kept), count)}

    return evaluate


def mean_over(measure: Callable[[Params, Key, Batch], Array]) -> Callable[[Params, Key, Iterator[Batch], int], Array]:
    """(params, key, batches, count) -> the mean of measure(params, key, batch), jitted, over so many batches."""
    run = jax.jit(measure)

    def mean(params: Params, key: Key, batches: Iterator[Batch], count: int) -> Array:
        return sum(run(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count  # pyright: ignore

    return mean
