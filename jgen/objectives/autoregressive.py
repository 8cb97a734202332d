"""The negative log-likelihood of autoregressive networks, and likelihoods on held-out images."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jgen.bits import Dequantization, bits_per_dim
from jgen.objectives.likelihood import Likelihood
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

Apply = Callable[..., Array]
"""(params, x, label=None, *, rngs=None, train=False) -> outputs [B, H, W, K]."""


def nll(apply: Apply, law: Likelihood, *, player: str = "net", conditional: bool = False, train: bool = True) -> LossFn:
    """-log p(image), mean over the batch, in nats a dimension; the metric "bits_per_dim" is the same in bits."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x, label = batch["image"], batch["label"] if conditional else None
        outputs = apply(params[player], x, label, rngs={"dropout": key}, train=train)
        value = -jnp.mean(law.log_prob(outputs, x)) / x.shape[-1]
        return value, (extra, {"bits_per_dim": value / math.log(2)})

    return loss


def bits_on(loss: LossFn, dequantization: Dequantization, bound: bool, scale: float = 1.0) -> Any:
    """A stage's evaluation: bits/dim on held-out images, of a loss in nats a dimension, under its full name."""
    run = jax.jit(lambda params, extra, key, batch: loss(params, extra, key, batch)[0])

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        losses = [run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        found = bits_per_dim(float(sum(losses)) / count, (1,), dequantization, bound=bound, scale=scale)
        return {found.name: found.bits}

    return evaluate
