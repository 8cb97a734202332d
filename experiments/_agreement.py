"""How often samples show what was asked for: their class, and the colours that captions of glyphs name."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments._observer import Observer, whole
from jgen.config import DataConfig
from jgen.data.glyphs import colours_seen
from jgen.metrics.extract import SHIPPED
from jgen.types import Array, Batch


def agreement(data: DataConfig, conditions: str, draw: Any) -> Any:
    """The evaluation of a model of classes ("label") or of captions ("caption"): the share of samples in which a shipped
    classifier sees the class asked for and, of glyphs' captions, the colours are those named. The same of the held-out
    images, whose classes and captions are asked for, is what a perfect model would score. Nothing for a set without a
    classifier.

    draw(params, extra, keys, asked [B, ...]) -> images in [-1, 1].
    """
    draw = jax.jit(draw)

    def evaluate(params, extra, key, batches, count):
        if f"{data.name}_cnn" not in SHIPPED:
            return {}
        observer, asked = Observer(data.name), [next(batches) for _ in range(count)]
        real = [batch["image"] for batch in asked]
        keys = observer.keys(key, real)
        fake = [draw(params, extra, own, batch[conditions]) for own, batch in zip(keys, asked)]
        coloured = conditions == "caption" and data.name == "glyphs"
        found = _shares(observer, fake, asked, coloured)
        held_out = _shares(observer, real, asked, coloured)
        return {f"agreement: {k}": v for k, v in found.items()} | {f"of held-out images: {k}": v for k, v in held_out.items()}

    return evaluate


def _shares(observer: Observer, images: Sequence[Array], asked: Sequence[Batch], coloured: bool) -> dict[str, float]:
    """Share of images that agree, by what is asked for."""
    wanted = {
        name: whole([batch[name] for batch in asked]) for name in ("label", "foreground", "background") if name in asked[0]
    }
    agrees = {"class": observer.see(images).logits.argmax(-1) == wanted["label"]}
    if coloured:
        front, back = colours_seen(whole(images))
        agrees |= {"colour": front == wanted["foreground"], "ground": back == wanted["background"]}
        agrees["all"] = np.logical_and.reduce(list(agrees.values()))
    return {name: float(right.mean()) for name, right in agrees.items()}
