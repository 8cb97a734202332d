"""The conditions of images in training, and how often they are left out for classifier-free guidance.

Ho & Salimans 2022 (arXiv:2207.12598): a share of the conditions becomes "none", so that one network learns both.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen.arrays import expand_dims_like
from jgen.types import Array, Batch, Condition, Key


class Conditioning(NamedTuple):
    """How a batch becomes a `Condition`, what stands for none, and how often it is taken in training."""

    of_batch: Callable[[Batch], Condition] = lambda batch: Condition()
    null: Callable[[Condition], Condition] = lambda condition: condition
    """(condition) -> the condition that stands for none; a model without conditions keeps its argument."""
    drop: float = 0.0
    """Share of the conditions left out in training."""

    def draw(self, key: Key, batch: Batch, train: bool = True) -> Condition:
        """The condition of a batch; in training a share of it, drawn image by image, is `null`."""
        condition = self.of_batch(batch)
        if not (self.drop and train):
            return condition
        return dropped(key, condition, self.null(condition), self.drop)


UNCONDITIONAL = Conditioning()


def by_label(null_label: int, drop: float = 0.0) -> Conditioning:
    """For models of classes: batch["label"]; null_label stands for none."""
    return Conditioning(
        lambda batch: Condition(label=batch["label"]),
        lambda condition: condition.replace(label=_full(condition.label, null_label)),
        drop,
    )


def by_caption(drop: float = 0.0) -> Conditioning:
    """For models of captions: batch["caption"]; zeros stand for none."""
    return Conditioning(
        lambda batch: Condition(caption=batch["caption"]),
        lambda condition: condition.replace(caption=_full(condition.caption, 0)),
        drop,
    )


def _full(values: Array | None, fill: int) -> Array | None:
    return None if values is None else jnp.full_like(values, fill)


def dropped(key: Key, condition: Condition, null: Condition, share: float) -> Condition:
    """The condition with `null` in place of a share of the images' own, drawn image by image."""
    count = len(jax.tree.leaves(condition)[0])
    gone = jax.random.bernoulli(key, float(share), (count,))
    return jax.tree.map(lambda none, own: jnp.where(expand_dims_like(gone, own), none, own), null, condition)
