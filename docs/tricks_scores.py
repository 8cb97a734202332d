"""The scores that `docs.tricks` compares a pair of runs by."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import jgen
from jgen.data import open_source
from jgen.metrics.extract import open_extractor
from jgen.metrics.frechet import distance, feature_moments
from jgen.metrics.neighbours import manifold
from jgen.pictures import to_bytes

BATCH = 500


def steps_of(folder: Path) -> int:
    """The steps of a run."""
    return jgen.load(folder).stage.train.steps


def scores(folder: Path, num: int, num_of_class: int) -> dict[str, float]:
    """Fréchet distance, precision and recall of a run's samples against its training set, by the features that ship for it.

    Of a model of classes also the mean over the classes of the Fréchet distance of `num_of_class` samples to the images of the
    class ("within_classes").
    """
    run = jgen.load(folder)
    data, source = run.stage.data, open_source(run.stage.data)
    extractor = open_extractor("", data.name)
    apply = jax.jit(extractor.apply)

    def features(levels: np.ndarray) -> np.ndarray:
        parts = [levels[i : i + BATCH] for i in range(0, len(levels), BATCH)]
        return np.concatenate([np.asarray(apply(extractor.variables, jnp.asarray(part, jnp.float32))[0]) for part in parts])

    examples = source[np.arange(len(source))]
    real, fake = features(examples["image"]), features(to_bytes(run.sample(num, seed=1)))
    near = manifold(real, fake)
    found = {"fd": distance(feature_moments(fake), feature_moments(real)), "precision": near.precision, "recall": near.recall}
    if run.config.gan.conditional if hasattr(run.config.gan, "conditional") else run.config.gan.conditioning != "none":
        own = []
        for k in range(data.num_classes):
            images = to_bytes(run.sample(num_of_class, seed=1, label=k))
            own.append(distance(feature_moments(features(images)), feature_moments(real[examples["label"] == k])))
        found["within_classes"] = float(np.mean(own))
    return {name: round(value, 4) for name, value in found.items()}
