"""Agreement: how often samples show the class they were given, and the colours that captions of glyphs name."""

from collections.abc import Callable, Iterator
from typing import Literal

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.data.glyphs import colours_seen
from jgen.recipes.evaluation.observer import Observer, image_keys_like, to_host
from jgen.train.stage import Evaluate
from jgen.types import Array, Batch, Extra, Key, Params

Draw = Callable[[Params, Extra, Array, Array], Array]
"""(params, extra, one key per image [B], labels or captions [B, ...]) -> images in [-1, 1]."""


def agreement(data: DataConfig, condition: Literal["label", "caption"], draw: Draw) -> Evaluate:
    """The evaluation of a model of classes ("label") or of captions ("caption"): the share of samples that agree.

    The labels and captions are those of held-out images. A sample agrees where the classifier that ships with jgen sees its
    class; of glyphs' captions also where the colours are the ones named. Rotation and size are not checked. The shares of
    the held-out images themselves are given too: a perfect model would reach them. Of a set without a classifier there is
    nothing to say.
    """
    draw, coloured = jax.jit(draw), condition == "caption" and data.name == "glyphs"

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        observer, fake, real = Observer(data.name), [], []
        if not observer.knows_classes:
            return {}
        for i in range(count):
            batch = next(batches)
            (keys,) = image_keys_like(jax.random.fold_in(key, i), [batch["image"]])
            fake.append(_right(observer, draw(params, extra, keys, batch[condition]), batch, coloured))
            real.append(_right(observer, batch["image"], batch, coloured))
        return _shares("agreement", fake) | _shares("agreement of held-out images", real)

    return evaluate


def _right(observer: Observer, images: Array, requested: Batch, coloured: bool) -> dict[str, np.ndarray]:
    """Which images agree with the batch of requests, bool [B], by the property that is compared."""
    right = {"class": observer.observe([images]).logits.argmax(-1) == to_host(requested["label"])}
    if coloured:
        front, back = colours_seen(to_host(images))
        right |= {"colour": front == to_host(requested["foreground"]), "ground": back == to_host(requested["background"])}
        right["all three"] = np.logical_and.reduce(list(right.values()))
    return right


def _shares(title: str, found: list[dict[str, np.ndarray]]) -> dict[str, float]:
    return {f"{title}: {name}": float(np.concatenate([part[name] for part in found]).mean()) for name in found[0]}
