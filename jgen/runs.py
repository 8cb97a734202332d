"""What the three commands of an experiment do, once their arguments are understood."""

import dataclasses
import json
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from jgen.config import check_at_least, to_dict
from jgen.data import Pipeline, open_source, resolve
from jgen.errors import UserError
from jgen.experiment import Experiment, Stage, draw, load
from jgen.train import pictures
from jgen.train.loop import Fitted, check, fit
from jgen.train.sharding import make_mesh
from jgen.train.summary import dry_run as show_cost

Build = Callable[[Any], Experiment]


def train(module: str, preset: str, build: Build, config: Any, folder: Path, dry_run: bool) -> None:
    """Trains every stage in turn, resuming where the run was left, then says where everything is."""
    config = dataclasses.replace(config, data=resolve(config.data))
    experiment, mesh = build(config), make_mesh(config.mesh)
    for stage in experiment.stages:
        check(stage, mesh)
    if dry_run:
        for stage in experiment.stages:
            show_cost(stage, mesh)
        return
    main = jax.process_index() == 0
    if main:
        write_config(folder, module, preset, config)
    again = f"python -m {module} train --run {folder}"
    stages, earlier = _begin(experiment, config, mesh)
    for stage in stages:
        place = experiment.folder(folder, stage)
        if main:
            print(f"{module} {preset}: training {stage.name} in {place} on {mesh.size} {jax.default_backend()} device(s)")
        fitted = fit(stage, place, mesh, earlier)
        if main:
            _report(module, preset, config, stage, place, folder, fitted, again)
        if not fitted.finished:
            if main:
                print(f"stopped at step {fitted.step} of {stage.train.steps}, saved; go on with:\n  {again}")
            return
        earlier = (fitted.state.averaged, fitted.state.extra)
    if main:
        last = experiment.folder(folder, experiment.stages[-1])
        print(f"samples: {last / 'samples.png'}\nreport:  {last / 'report.html'}\nnext:")
        for command in _commands(module, folder):
            print(f"  {command}")


def write_config(folder: Path, module: str, preset: str, config: Any) -> None:
    """config.json of a run: what `load` and a resumed run read."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    versions = {"python": platform.python_version(), "jgen": version("jgen"), **{n: version(n) for n in names}}
    content = {"module": module, "preset": preset, "config": to_dict(config), "versions": versions}
    temporary = folder / "config.tmp"
    temporary.write_text(json.dumps(content, indent=2))
    os.replace(temporary, folder / "config.json")


def _begin(experiment: Experiment, config: Any, mesh: Any) -> tuple[list[Stage], Any]:
    """The stages to run, and what the first begins from: nothing, or the result of the run in train.begin_from."""
    stages = list(experiment.stages)
    source = getattr(getattr(config, "train", None), "begin_from", "")
    if not source:
        return stages, None
    earlier = load(source, mesh)
    names = [stage.name for stage in stages]
    if earlier.stage.name not in names:
        raise UserError(f"train.begin_from={source}: its stage {earlier.stage.name} is none of {', '.join(names)}")
    place = min(names.index(earlier.stage.name) + 1, len(stages) - 1)
    return stages[place:], (earlier.params, earlier.extra)


def _commands(module: str, folder: Path) -> list[str]:
    return [
        f"python -m {module} sample --run {folder} --num 64 --seed 1",
        f"python -m {module} evaluate --run {folder}",
        f"python -m {module} train --run {folder}      # resumes, should it be interrupted",
        f"python -m {module} --help",
    ]


def _report(module: str, preset: str, config: Any, stage: Stage, place: Path, folder: Path, fitted: Fitted, again: str) -> None:
    facts = {
        "stage": stage.name,
        "step": f"{fitted.step} of {stage.train.steps}",
        "speed": f"{1e3 * fitted.seconds_a_step:.1f} ms a step of {stage.data.batch_size} images",
        "devices": f"{jax.device_count()} {jax.default_backend()}, {jax.process_count()} process(es)",
        "written": time.strftime("%Y-%m-%d %H:%M"),
    }
    pictures.report(place, f"{module} {preset}", to_dict(config), facts, [again, *_commands(module, folder)])


def sample(folder: Path, options: Any, num: int, seed: int, batch: int, out: str) -> None:
    """Draws images from a run and writes them as a grid, an array file, or a folder of PNGs."""
    check_at_least(1, num=num, batch=batch)
    run = load(folder)
    began = time.monotonic()
    images = draw(run.stage, run.params, run.extra, run.mesh, num=num, seed=seed, options=options, batch=batch)
    seconds = time.monotonic() - began
    path = Path(out) if out else folder / f"samples-seed{seed}.png"
    write_images(images, path)
    print(f"{num} images from step {run.step} in {seconds:.1f} s, compilation included: {path}")


def write_images(images: np.ndarray, path: Path) -> None:
    """A .png grid, an .npz of uint8 under "images", or a folder with one PNG an image."""
    if path.suffix == ".png":
        return pictures.save(pictures.grid(images), path)
    if path.suffix == ".npz":
        path.parent.mkdir(parents=True, exist_ok=True)
        return np.savez_compressed(path, images=pictures.to_bytes(images))
    if path.suffix:
        raise UserError(f"out={path}: must be a .png, a .npz, or a folder")
    path.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(pictures.to_bytes(images)):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path / f"{i:06d}.png")
    return None


def evaluate(folder: Path, num: int, seed: int, split: str, batch: int) -> None:
    """Measures a run on held-out images; prints a table and writes evaluate.json with what it took to get there."""
    check_at_least(1, num=num, batch=batch)
    run = load(folder)
    if run.stage.evaluate is None:
        raise UserError(f"run={folder}: {run.stage.name} has no evaluation")
    data = dataclasses.replace(run.stage.data, split=split, limit=0, flip=False)
    source = open_source(data, seed)
    if tuple(source.shape) != tuple(run.stage.data.shape):
        raise UserError(f"data: {data.name} is {source.shape} now, the run was trained on {run.stage.data.shape}")
    num = min(num, len(source))
    size = max(min(batch, num) // run.mesh.size, 1) * run.mesh.size
    pipeline = Pipeline(source, dataclasses.replace(data, batch_size=size), seed, run.mesh)
    used = max(num // size, 1) * size
    values = run.stage.evaluate(run.params, run.extra, jax.random.key(seed), pipeline.batches(), used // size)
    table = Table(title=f"{folder}, step {run.step}, {used} {split} images", title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    for name, value in values.items():
        table.add_row(name, f"{value:.5f}")
    Console().print(table)
    record = {
        "run": str(folder), "step": run.step, "set": data.name, "split": split, "num": used, "seed": seed,
        "values": {k: float(v) for k, v in values.items()}, "versions": {"jgen": version("jgen"), "jax": jax.__version__},
    }  # fmt: skip
    path = folder / "evaluate.json"
    path.write_text(json.dumps(record, indent=2))
    print(f"written: {path}")
