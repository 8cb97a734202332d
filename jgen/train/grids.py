"""The pictures of a training: grids of samples and of a stage's own pictures, and curves of its metrics."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jgen import pictures
from jgen.config import DataConfig, ranges
from jgen.data import Pipeline, Source, open_source
from jgen.errors import UserError
from jgen.sharding import replicated, rounded_down
from jgen.train.draw import draw
from jgen.train.log import Log, read
from jgen.train.stage import Picture, Stage
from jgen.train.step import TrainState
from jgen.types import Extra, Params

PREVIEW = 64
"""Images of a sample grid."""
LABELS = ("steps", "eta", "label", "guidance", "psi", "temperature", "deviation", "top_k")
"""Options of sampling that the caption of a picture names."""


def held_out_source(stage: Stage, most: int, mesh: Mesh) -> tuple[Source, DataConfig]:
    """Images that were not trained on, in batches of at most so many; of a set without a test split, the training images."""
    try:
        source = open_source(dataclasses.replace(stage.data, split="test", limit=0), stage.train.seed)
    except UserError:
        source = open_source(stage.data, stage.train.seed)
    size = rounded_down(min(most, len(source)), mesh)
    return source, dataclasses.replace(stage.data, batch_size=size, flip=False)


def grid_names(stage: Stage) -> list[str]:
    """The names of a stage's pictures."""
    return [*(["samples"] if stage.sample is not None else []), *stage.pictures]


def draw_curves(folder: Path) -> None:
    """Writes loss.png: the loss, or every metric of a stage that has no metric of this name."""
    if records := read(folder / "metrics.jsonl"):
        names = ["loss"] if any("loss" in record for record in records) else None
        pictures.save(pictures.curves(records, names), folder / "loss.png")


def save_grids(stage: Stage, state: TrainState, mesh: Mesh, folder: Path, step: int, log: Log) -> None:
    """Writes the grids of a step: samples, and the stage's other pictures; of the last step, as NAME.png too."""
    grids: dict[str, np.ndarray] = {}
    if stage.sample is not None:
        seed = stage.train.seed
        grids["samples"] = draw(stage, state.averaged, state.extra, mesh, num=PREVIEW, seed=seed, batch=PREVIEW)
    for name in stage.pictures:
        grids[name] = stage_picture(stage, name, state.averaged, state.extra, mesh)
    if jax.process_index():
        return
    for name, images in grids.items():
        picture = pictures.grid(images)
        log.picture(step, name, picture)
        about = (
            f"{shows(stage, name)}: {len(images)} images, step {step:,}, seed {stage.train.seed if name == 'samples' else 0}"
        )
        pictures.save(picture, folder / "samples" / f"{step:08d}{'' if name == 'samples' else '-' + name}.png")
        if step == stage.train.steps:
            pictures.save(picture, folder / f"{name}.png", about)


def shows(stage: Stage, name: str, options: Any = None) -> str:
    """A sentence on what a picture shows: samples with the options that they were drawn with, others as they are described."""
    if name == "samples":
        chosen = stage.options if options is None else options
        own = {leaf.name: ranges.shown(leaf.value) for leaf in ranges.leaves(chosen)} if chosen is not None else {}
        solver = getattr(chosen, "solver", None)
        first = [f"sampler={solver.sampler}"] if solver is not None else []
        listed = [*first, *(f"{label}={own[label]}" for label in LABELS if label in own)]
        return f"Samples ({', '.join(listed)})" if listed else "Samples"
    text = ({**stage.pictures, **stage.on_request}[name].__doc__ or "").split(". ")[0].split("\n")[0].strip().rstrip(".")
    return text or name.replace("_", " ")


def stage_picture(stage: Stage, name: str, params: Params, extra: Extra, mesh: Mesh, seed: int = 0) -> np.ndarray:
    """The images [N, H, W, C] of one of a stage's pictures, made of held-out images and the key of `seed`."""
    source, data = held_out_source(stage, PREVIEW, mesh)
    batch = next(Pipeline(source, data, 0, mesh).batches())
    make = {**stage.pictures, **stage.on_request}[name]
    return np.asarray(_picture(make, mesh)(params, stage.extra_for(extra, stage.options, mesh), jax.random.key(seed), batch))


@functools.lru_cache(16)
def _picture(make: Picture, mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(make, out_shardings=replicated(mesh))
