"""How often samples show what was asked for: their class, and the colours that captions of glyphs name."""

from typing import Any

import jax
import numpy as np

from experiments._observer import Observer, whole
from jgen.config import DataConfig
from jgen.data.glyphs import colours_seen
from jgen.types import Array, Batch


def agreement(data: DataConfig, condition: str, draw: Any) -> Any:
    """The evaluation of a model of classes ("label") or of captions ("caption"): the share of samples in which the classifier
    that ships with jgen sees the class asked for and, of glyphs' captions, the colours are those named; not whether they are
    rotated, small or large. The same of the held-out images, whose classes and captions are asked for, is what a perfect model
    would score.

    draw(params, extra, keys, asked [B, ...]) -> images in [-1, 1]. Raises UserError for a set without a classifier.
    """
    draw, coloured = jax.jit(draw), condition == "caption" and data.name == "glyphs"

    def evaluate(params, extra, key, batches, count):
        observer, fake, real = Observer(data.name), [], []
        for i in range(count):
            batch = next(batches)
            (keys,) = observer.keys(jax.random.fold_in(key, i), [batch["image"]])
            fake.append(_right(observer, draw(params, extra, keys, batch[condition]), batch, coloured))
            real.append(_right(observer, batch["image"], batch, coloured))
        return _shares("agreement", fake) | _shares("agreement of held-out images", real)

    return evaluate


def _right(observer: Observer, images: Array, asked: Batch, coloured: bool) -> dict[str, np.ndarray]:
    """Which images agree, bool [B], by what is asked for."""
    right = {"class": observer.see([images]).logits.argmax(-1) == whole(asked["label"])}
    if coloured:
        front, back = colours_seen(whole(images))
        right |= {"colour": front == whole(asked["foreground"]), "ground": back == whole(asked["background"])}
        right["all three"] = np.logical_and.reduce(list(right.values()))
    return right


def _shares(title: str, found: list[dict[str, np.ndarray]]) -> dict[str, float]:
    return {f"{title}: {name}": float(np.concatenate([part[name] for part in found]).mean()) for name in found[0]}
