"""Lost modes: the share of each class among samples, with precision and recall."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.metrics.neighbours import manifold
from jgen.recipes.evaluation.observer import Observer, held_out
from jgen.train.stage import Evaluate
from jgen.types import Batch, Extra, Key, Params, Sample

COUNTED = 4096
"""Least number of samples that the classes are counted in: a share of 3 % is then known to 0.3 %."""


def modes(data: DataConfig, sample: Sample, options: Any) -> Evaluate:
    """The evaluation of a sampler with its options: shares of the classes, precision (fidelity) and recall (diversity).

    The classifier that ships with jgen counts the classes, of a set that has one; a share below 3 % of ten classes is a lost
    mode. Precision and recall compare samples with as many held-out images.
    """

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        observer, images = Observer(data.name), held_out(batches, count)
        draw = jax.jit(lambda params, extra, keys: sample(params, extra, keys, options))
        real = observer.observe(images)
        like = images * (-(-COUNTED // len(real.features)) if observer.knows_classes else 1)
        fake = observer.observe_samples(lambda keys: draw(params, extra, keys), key, like)
        scores = manifold(real.features, fake.features[: len(real.features)], 3)
        found = class_shares(fake.logits, data.num_classes) if observer.knows_classes else {}
        return {**found, "precision": scores.precision, "recall": scores.recall}

    return evaluate


def class_shares(logits: np.ndarray, classes: int) -> dict[str, float]:
    """How many classes are the likeliest of some row of logits [N, classes], the least share, and the first ten shares."""
    shares = np.bincount(logits.argmax(-1), minlength=classes) / len(logits)
    found = {"classes found": float((shares > 0).sum()), "least share of a class": float(shares.min())}
    return found | {f"share of class {k}": float(share) for k, share in enumerate(shares[:10])}
