"""The command train: every stage of an experiment in turn, its report, and what a step would cost."""

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from jgen.app.experiments import running
from jgen.app.load import Build, load
from jgen.config import check as check_config
from jgen.config import to_dict
from jgen.config.migrate import FORMAT
from jgen.config.train import Accelerator
from jgen.data import Pipeline, census
from jgen.data.known import resolve_or_known
from jgen.errors import UserError
from jgen.files import replacing, versions
from jgen.metrics import extract
from jgen.recipes.common import resolved
from jgen.recipes.gan.backbones import of_shapes
from jgen.sharding import make_mesh
from jgen.train import lost
from jgen.train.checkpoint import check_fits, steps_in
from jgen.train.estimate import with_training
from jgen.train.grids import shows
from jgen.train.loop import Fitted, check, fit
from jgen.train.report import Part, report
from jgen.train.stage import Experiment, Stage, count, state_shapes
from jgen.train.stop import locked
from jgen.train.summary import dry_run as show_cost
from jgen.train.summary import show_estimate


def show_costs(build: Build, config: Any, memory: bool, device: Accelerator) -> None:
    """Prints what a step of every stage costs, here and on eight accelerators of a kind; data and DeiT's file may be missing.

    memory: compiles the step to see what it takes.
    """
    check_config(config)
    config = dataclasses.replace(config, data=resolve_or_known(config.data))
    mesh = make_mesh(config.mesh)
    with of_shapes():
        for i, stage in enumerate(build(config).stages):
            found = show_cost(stage, mesh, memory=memory)
            stage_with = with_training(lambda config: build(config).stages, config, i)
            show_estimate(stage, stage_with, found["flops"], device)


def train(module: str, preset: str, build: Build, config: Any, folder: Path) -> None:
    """Trains every stage in turn, resuming where the run was left, then says where everything is."""
    config = resolved(config)
    experiment, mesh = build(config), make_mesh(config.mesh)
    for stage in experiment.stages:
        check(stage, mesh)
    main = jax.process_index() == 0
    again = f"python -m {module} train --run {folder}"
    stages, earlier = _begin(experiment, config, mesh)
    # Before anything is written, since what does not fit is refused, and would be the newest run that sample looks for.
    if earlier is not None:
        state_shapes(stages[0], earlier)
    pipeline = Pipeline(stages[0].open_source(), stages[0].data, stages[0].train.seed, mesh)
    with lost.named(), locked(folder) if main else contextlib.nullcontext():
        _check_folder(experiment, stages, folder)
        if main:
            write_config(folder, module, preset, config, census(config.data))
        parts: list[Part] = []
        for stage in stages:
            place = experiment.folder(folder, stage)
            if main:
                print(f"{module} {preset}: training {stage.name} in {place} on {mesh.size} {jax.default_backend()} device(s)")
            fitted = fit(stage, place, mesh, earlier, pipeline if stage is stages[0] else None, lock=False)
            if main:
                parts.append(_part(stage, place, fitted))
                _report(module, preset, config, folder, parts, stage)
            if not fitted.finished:
                if main:
                    print(f"stopped at step {fitted.step} of {stage.train.steps}, saved; go on with:\n  {again}")
                return
            earlier = (fitted.state.averaged, fitted.state.extra)
    if main:
        _show_results(module, folder, experiment)


def _show_results(module: str, folder: Path, experiment: Experiment) -> None:
    """Says where the results are and what to run next."""
    stage = experiment.stages[-1]
    last = experiment.folder(folder, stage)
    if stage.sample:
        print(f"samples: {last / 'samples.png'}")
    print(f"report:  {folder / 'report.html'}\nnext:")
    for command in _commands(module, folder, stage):
        print(f"  {command}")


def began() -> str:
    """The time of day for the name of a run's folder; that of process 0 on all of several."""
    now = int(time.time())
    if jax.process_count() > 1:
        now = int(multihost_utils.broadcast_one_to_all(np.int32(now)))
    return time.strftime("%Y%m%d-%H%M%S", time.localtime(now))


def write_config(folder: Path, module: str, preset: str, config: Any, files: str = "") -> None:
    """config.json of a run: what `load` and a resumed run read. files: the census of its set."""
    found = versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    content = {
        "format": FORMAT,
        "module": module,
        "preset": preset,
        "config": to_dict(config),
        "files": files,
        "versions": found,
    }
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps({**content, "versions": found}, indent=2))


def _check_folder(experiment: Experiment, stages: Sequence[Stage], folder: Path) -> None:
    """Raises UserError where what stages have trained in a folder is not what these settings would have made of it."""
    unfinished = ""
    for stage in stages:
        place = experiment.folder(folder, stage) / "checkpoints"
        if steps := steps_in(place):
            check_fits(place, state_shapes(stage))
        if steps and unfinished:
            raise UserError(f"run={folder}: {stage.name} was begun from {unfinished}; start another run for more of them")
        if steps and steps[-1] < stage.train.steps:
            unfinished = f"{stage.name} as it was after {steps[-1]} of what are now {stage.train.steps} steps"


def _begin(experiment: Experiment, config: Any, mesh: Any) -> tuple[list[Stage], Any]:
    """The stages to run, and what the first begins from: nothing, or the result of the run in train.begin_from."""
    stages = list(experiment.stages)
    source = getattr(getattr(config, "train", None), "begin_from", "")
    if not source:
        return stages, None
    folder, stage = _stage_folder(Path(source))
    earlier = load(folder, mesh, stage=stage)
    names = [stage.name for stage in stages]
    if earlier.stage.name not in names:
        raise UserError(f"train.begin_from={source}: its stage {earlier.stage.name} is none of {', '.join(names)}")
    place = min(names.index(earlier.stage.name) + 1, len(stages) - 1)
    if stages[place].name == earlier.stage.name:  # trained on: it keeps all of its weights and state
        stages[place] = dataclasses.replace(stages[place], begin=None)
    return stages[place:], (earlier.params, earlier.extra)


def _stage_folder(path: Path) -> tuple[Path, str]:
    """(folder of a run, "") or, where the path is that of one of its stages, (folder of the run, name of the stage)."""
    inside = not (path / "config.json").is_file() and (path.parent / "config.json").is_file()
    return (path.parent, path.name) if inside else (path, "")


def _commands(module: str, folder: Path, stage: Stage) -> list[str]:
    missing = extract.missing_package(stage.data.name)
    first = f"pip install {missing} && " if missing else ""
    folder_set = stage.data.name.startswith("folder:")
    own, held_out = ("its training", "") if folder_set else ("held-out", "; with --split test against held-out ones")
    draws = [
        f"python -m {module} sample --run {folder} --num 64 --seed 1",
        f"{first}python -m {module} evaluate --run {folder} --metrics fd,kid,pr --num 1000"
        f"      # 1,000 samples against the training images{held_out}",
    ]
    return [
        *(draws if stage.sample else []),
        f"python -m {module} evaluate --run {folder}      # the model's own measures, on {own} images",
        f"python -m {module} train --run {folder}      # resumes, should it be interrupted",
        f"python -m {module} --help",
    ]


def _part(stage: Stage, place: Path, fitted: Fitted) -> Part:
    """A stage of the report. Its times are kept beside it, since a run that is found finished measures none."""
    devices = f"{jax.device_count()} {jax.default_backend()}, {jax.process_count()} process(es)"
    facts = {
        "step": f"{fitted.step:,} of {stage.train.steps:,}",
        "data": f"{stage.data.name}, {'x'.join(map(str, stage.data.shape))}, {stage.data.batch_size} images a step",
        "parameters": ", ".join(f"{name} {count(tree):,}" for name, tree in fitted.state.params.items()),
    }
    kept = place / "facts.json"
    if fitted.seconds_a_step:
        took = f"{1e3 * fitted.seconds_a_step:.1f} ms a step, {fitted.seconds_a_step * fitted.step / 60:.1f} minutes in all"
        known = ", ".join(f"{name} {number}" for name, number in versions("jax", "flax", "numpy").items())
        measured = {"time": took, "devices": devices, "versions": known, "written": time.strftime("%Y-%m-%d %H:%M")}
        with replacing(kept) as temporary:
            temporary.write_text(json.dumps(measured))
    facts |= _texts(kept)
    return Part(stage.name, place, facts, {name: shows(stage, name) for name in stage.pictures})


def _texts(path: Path) -> dict[str, str]:
    """The texts by name of a JSON file; none where it is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): str(text) for name, text in found.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _report(module: str, preset: str, config: Any, folder: Path, parts: Sequence[Part], stage: Stage) -> None:
    named = running[module].build.__module__ if module in running else module  # __main__ where the shell began it
    about = (getattr(sys.modules.get(named), "__doc__", "") or "").partition("\n")[0]
    text = f"{about} The pictures are drawn with the averaged weights, where training keeps an average."
    report(folder, f"{module} {preset}", text, to_dict(config), parts, _commands(module, folder, stage))
