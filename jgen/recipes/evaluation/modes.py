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

    The classifier that ships with jgen counts the classes; a share below 3 % of ten classes is a lost mode. Precision and
    recall compare samples with as many held-out images.
    """

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        observer, images = Observer(data.name), held_out(batches, count)
        draw = jax.jit(lambda params, extra, keys: sample(params, extra, keys, options))
        real = observer.observe(images)
        like = images * -(-COUNTED // len(real.features))
        fake = observer.observe_samples(lambda keys: draw(params, extra, keys), key, like)
        shares = np.bincount(fake.logits.argmax(-1), minlength=data.num_classes) / len(fake.logits)
        scores = manifold(real.features, fake.features[: len(real.features)], 3)
        found = {"classes found": float((shares > 0).sum()), "least share of a class": shares.min()}
        found |= {f"share of class {k}": share for k, share in enumerate(shares[:10])}
        return {**found, "precision": scores.precision, "recall": scores.recall}

    return evaluate
