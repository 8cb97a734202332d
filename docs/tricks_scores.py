"""The scores that `docs.tricks` compares a pair of runs by."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

import jgen
from jgen.data import open_source
from jgen.metrics import frechet, scores
from jgen.metrics.collect import Collected, collect
from jgen.metrics.extract import open_extractor
from jgen.metrics.image_sets import image_batches
from jgen.pictures import to_bytes
from jgen.sharding import rounded_up

BATCH = 500


def steps_of(folder: Path) -> int:
    """The steps of a run."""
    return jgen.load(folder).stage.train.steps


def scores_of(folder: Path, num: int, num_of_class: int) -> dict[str, float]:
    """Fréchet distance, precision and recall of a run's samples against its training set, by the features that ship for it.

    Of a model of classes also the mean over the classes of the Fréchet distance of `num_of_class` samples to the images of the
    class ("within_classes").
    """
    run = jgen.load(folder)
    data, source = run.stage.data, open_source(run.stage.data)
    extractor, size = open_extractor("", data.name), rounded_up(BATCH, run.mesh)

    def collected(batches: Iterable[Any], count: int, *metrics: str) -> Collected:
        return collect(batches, extractor, run.mesh, count, metrics)

    def drawn(count: int, *metrics: str, **changes: Any) -> Collected:
        whole = to_bytes(run.sample(rounded_up(count, run.mesh), seed=1, **changes))
        return collected([whole], count, *metrics)

    real, fake = collected(image_batches(source, len(source), size), len(source), "fd", "pr"), drawn(num, "fd", "pr")
    measured = scores.scores(("fd", "pr"), fake, real, extractor)
    found = {name: measured[extractor.short(name)][0] for name in ("fd", "precision", "recall")}
    if run.config.gan.conditional if hasattr(run.config.gan, "conditional") else run.config.gan.conditioning != "none":
        assert real.features is not None
        labels, own = np.array([source[i]["label"] for i in range(len(source))]), []
        for k in range(data.num_classes):
            moments = frechet.feature_moments(real.features[labels == k])
            own.append(frechet.distance(drawn(num_of_class, "fd", label=k).moments, moments))
        found["within_classes"] = float(np.mean(own))
    return {name: round(value, 4) for name, value in found.items()}
