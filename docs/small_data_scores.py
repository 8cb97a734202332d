"""The scores that `docs.small_data` gives a run, and the picture of samples beside training images."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import jgen
from jgen.app.nearest import nearest_images
from jgen.data import Source, open_source
from jgen.metrics import scores
from jgen.metrics.collect import Collected, collect
from jgen.metrics.extract import Extractor, open_extractor
from jgen.metrics.image_sets import image_batches
from jgen.metrics.neighbours import nearest_in
from jgen.pictures import grid, to_bytes
from jgen.sharding import rounded_up

METRICS = ("fd", "pr", "auth")
BATCH = 500
SAMPLES, LABEL, GAP = 6, 16, 8
"""Of a method in the picture; pixels of its name, and between methods."""


def scores_of(folder: Path, num: int, features: str) -> dict[str, float]:
    """Fréchet distance, precision, recall and authenticity of `num` samples of a run against its training set.

    By the features of EfficientNet-Lite0, and the Fréchet distance ("fd_own") by those of a file as well, where one is named.
    "distance": the mean distance of a sample to the training image nearest to it, over that of held-out images.
    """
    run = jgen.load(folder)
    data, images = run.stage.data, to_bytes(run.sample(rounded_up(num, run.mesh), seed=1))
    training, held_out = open_source(data), open_source(replace(data, split="test"))

    def of_source(source: Source, extractor: Extractor) -> Collected:
        size = rounded_up(min(BATCH, len(source)), run.mesh)
        return collect(image_batches(source, len(source), size), extractor, run.mesh, len(source), METRICS)

    def against(extractor: Extractor) -> tuple[dict[str, float], float]:
        real, fake = of_source(training, extractor), collect([images], extractor, run.mesh, num, METRICS)
        near = [_distance(real, other) for other in (fake, of_source(held_out, extractor))]
        measured = scores.scores(METRICS, fake, real, extractor)
        names = ("fd", "precision", "recall", "authenticity")
        return {name: measured[extractor.short(name)][0] for name in names}, near[0] / near[1]

    found, distance = against(open_extractor("", data.name))
    own = {"fd_own": against(open_extractor(f"cnn:{features}", data.name))[0]["fd"]} if features else {}
    return {name: round(value, 4) for name, value in {**found, **own, "distance": distance}.items()}


def _distance(real: Collected, other: Collected) -> float:
    assert real.features is not None
    assert other.features is not None
    return float(np.sqrt(nearest_in(real.features, other.features, 1)[0]).mean())


def beside_training(runs: Mapping[str, Path]) -> Image.Image:
    """Samples of runs, by the methods' names, and in each row the training images that are nearest to its first image."""
    panels = {}
    for name, folder in runs.items():
        run = jgen.load(folder)
        rows = nearest_images(run, run.stage.options, SAMPLES, seed=0)
        panels[name] = grid(rows.reshape(-1, *rows.shape[2:]), columns=rows.shape[1], least=1)
    widths = [panel.width + GAP for panel in panels.values()]
    picture = Image.new("RGB", (sum(widths) - GAP, LABEL + max(panel.height for panel in panels.values())), "white")
    for i, (name, panel) in enumerate(panels.items()):
        left = sum(widths[:i])
        ImageDraw.Draw(picture).text((left, 1), name, "black")
        picture.paste(panel, (left, LABEL))
    return picture
