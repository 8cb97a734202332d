"""The three commands of an experiment, after their arguments are understood."""

import contextlib
import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from rich.console import Console
from rich.table import Table

from jgen import pictures
from jgen.app import edit, noise_edit
from jgen.app.export import export
from jgen.app.images_out import WRITTEN, check_images_out, write_images
from jgen.app.load import Run, load
from jgen.app.moving import effects, moving_pictures, write_moving
from jgen.app.protocol import paper
from jgen.config import DataConfig, Evaluation, MeshConfig, ranges, to_dict
from jgen.config import check as check_config
from jgen.config.migrate import FORMAT
from jgen.config.sampling import Animation
from jgen.config.train import Accelerator
from jgen.data import Pipeline, Source, open_source, survey
from jgen.data.known import resolve_or_known
from jgen.data.sources import resolve
from jgen.errors import UserError
from jgen.files import check_out, replacing, versions
from jgen.metrics import equivariance, extract, record, scores
from jgen.metrics.record import Record
from jgen.recipes.common import resolved
from jgen.recipes.evaluation.equivariance import equivariance_of
from jgen.recipes.gan.backbones import of_shapes
from jgen.run_folder import read_config
from jgen.sharding import make_mesh, rounded_down, rounded_up
from jgen.train import distributed, lost
from jgen.train.checkpoint import check_fits, steps_in
from jgen.train.draw import draw, drawn
from jgen.train.estimate import with_training
from jgen.train.grids import shows, stage_picture
from jgen.train.loop import Fitted, check, fit
from jgen.train.report import Part, report, show_scores
from jgen.train.stage import Experiment, Stage, count, state_shapes
from jgen.train.stop import locked
from jgen.train.summary import dry_run as show_cost
from jgen.train.summary import show_estimate

Build = Callable[[Any], Experiment]

start = distributed.start
"""Called before any device is touched."""
facts_of = survey.survey
"""The facts that --preset auto chooses settings by."""
export_run = export
"""Writes a run in a form that is read elsewhere."""


def show_costs(build: Build, config: Any, memory: bool, device: Accelerator) -> None:
    """Prints what a step of every stage costs, here and on eight accelerators of a kind; data and DeiT's file may be missing.

    memory: compiles the step to see what it takes.
    """
    check_config(config)
    try:
        data = resolve(config.data)
    except UserError as error:
        data = resolve_or_known(config.data)
        print(f"{error}; reckoned with images of {'x'.join(map(str, data.shape))}")
    config, mesh = dataclasses.replace(config, data=data), make_mesh(config.mesh)
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
            write_config(folder, module, preset, config)
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


def write_config(folder: Path, module: str, preset: str, config: Any) -> None:
    """config.json of a run: what `load` and a resumed run read."""
    found = versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    content = {"format": FORMAT, "module": module, "preset": preset, "config": to_dict(config), "versions": found}
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(json.dumps(content, indent=2))


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
    draws = [
        f"python -m {module} sample --run {folder} --num 64 --seed 1",
        f"{first}python -m {module} evaluate --run {folder} --metrics fd,kid,pr --num 1000"
        "      # 1,000 samples against the training images; with --split test against held-out ones",
    ]
    return [
        *(draws if stage.sample else []),
        f"python -m {module} evaluate --run {folder}      # the model's own measures, on held-out images",
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
    about = (getattr(sys.modules.get(module), "__doc__", "") or "").partition("\n")[0]
    text = f"{about} The pictures are drawn with the averaged weights, where training keeps an average."
    report(folder, f"{module} {preset}", text, to_dict(config), parts, _commands(module, folder, stage))


def sample(folder: Path, options: Any, num: int, seed: int, batch: int, out: str, mesh: MeshConfig | None = None) -> None:
    """Draws images from a run and writes them as a grid, an array file, or a folder of PNGs."""
    if out:
        check_images_out(Path(out), num)
    run = load(folder, make_mesh(mesh))
    path = Path(out) if out else folder / f"samples{_differing(run, options)}-seed{seed}.png"
    began = time.monotonic()
    images = draw(run.stage, run.params, run.extra, run.mesh, num=num, seed=seed, options=options, batch=batch, bar=True)
    seconds = time.monotonic() - began
    write_images(images, path, f"{shows(run.stage, 'samples', options)}: {num} images, step {run.step:,}, seed {seed}")
    print(f"{num} images from step {run.step} in {seconds:.1f} s, compilation included: {path}")


def picture(
    folder: Path, name: str, options: Any, seed: int, out: str, mesh: MeshConfig | None, how: Animation, num: int,
    given: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes one of the run's other pictures: a grid, arrays or PNGs, or a moving one, of `num` images.

    Without a name it is the moving one that the model has: images as they are denoised, or a walk through its latents.
    given: options that were named, among num, batch, frames and fps. Raises UserError for those without effect on the picture.
    """
    run = load(folder, make_mesh(mesh), options)
    moving = moving_pictures(run, num)
    name = name or next(iter(moving), "")
    known = {**run.stage.pictures, **run.stage.on_request}
    if name not in {**known, **moving}:
        there = ", ".join([*known, *moving]) or "none"
        raise UserError(f"picture={name}: {run.stage.name} has no such picture; there are {there}")
    effective = effects(run, name) if name in moving else ()
    for option in given:
        if option not in effective:
            raise UserError(f"{option}: has no effect on --picture {name}; leave it out")
    tag = "" if out else _differing(load(folder, run.mesh), options)
    path = Path(out) if out else folder / f"{name}{tag}-seed{seed}.{'gif' if name in moving else 'png'}"
    if name in moving:
        write_moving(moving[name], path, seed, num, how)
    else:
        check_out(path, WRITTEN)
        images = stage_picture(run.stage, name, run.params, run.extra, run.mesh, seed)
        pictures.check_finite(images, f"picture={name}")
        write_images(images, path, f"{shows(run.stage, name)}: step {run.step:,}, seed {seed}")
    print(f"{name} from step {run.step}: {path}")


def _differing(run: Run, options: Any) -> str:
    """A tag of options other than the run's own for a picture's name, so that it takes the place of no other's."""
    own = run.stage.options
    if options is None or own is None or to_dict(options) == to_dict(own):
        return ""
    tag = hashlib.sha256(json.dumps(to_dict(options), sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"-{options.solver.sampler}-{tag}" if hasattr(options, "solver") else f"-{tag}"


def edit_pictures(
    family: str, command: str, folder: Path, groups: dict[str, Any], out: str, mesh: MeshConfig | None = None
) -> None:
    """Inverts, edits, mixes or makes pictures by a run with styles, or of a diffusion model ("noise"); groups of options."""
    getattr({"styles": edit, "noise": noise_edit}[family], command)(folder, **groups, out=out, mesh=mesh)


def evaluate(folder: Path, given: Evaluation, options: Any, mesh: MeshConfig | None = None) -> None:
    """Measures a run and prints a table; writes the records, each with what it took to get there."""
    ranges.check(given)
    if given.out:
        check_out(Path(given.out), (".json",))
    if given.protocol:
        stored = read_config(folder)
        given, target = paper(stored["module"], stored["preset"], given)
        print(target)
    metrics = scores.parse(given.metrics, {**scores.METRICS, **equivariance.NAMES}) if given.metrics else ()
    if not metrics and (given.against or given.extractor or given.reference_num):
        raise UserError(f"metrics: name at least one of {', '.join(scores.METRICS)}")
    run = load(folder, make_mesh(mesh), options)
    data = dataclasses.replace(run.stage.data, split=given.split or ("train" if metrics else "test"), limit=0, flip=False)
    if data.name.startswith("folder:") and data.split != "train":
        print(f"{data.name}: a folder has no held-out split; these are the images it was trained on")
        data = dataclasses.replace(data, split="train")
    source = open_source(data, run.stage.train.seed)
    if metrics:
        moved = [m for m in metrics if m in equivariance.NAMES]
        records = _equivariance(run, given, moved, options) if moved else []
        if against_set := [m for m in metrics if m not in moved]:
            records += _scores(run, given, data, source, against_set, options)
        name = f"scores-{'-'.join(metrics)}"
    else:
        records, name = _own(run, given, data, source, options), "evaluate"
    if jax.process_index():
        return
    p = records[0].protocol
    title = f"{records[0].subject.get('images') or f'{folder}, step {run.step}'}: {p['num']} images, seed {given.seed}"
    table = Table(title=title, title_justify="left")
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.caption, table.caption_justify = record.basis(records[0]), "left"
    for row in records:
        table.add_row(row.metric, f"{row.value:.5f}")
    Console(soft_wrap=True).print(table)
    facts = json.dumps([p, records[0].subject], sort_keys=True, default=str)
    tag = hashlib.sha256(facts.encode()).hexdigest()[:8]  # another protocol or subject is another file
    path = Path(given.out) if given.out else folder / f"{name}-{p['num']}-seed{given.seed}-{tag}.json"
    record.write(records, path)
    show_scores(folder)
    print(f"written: {path}")


def _own(run: Run, given: Evaluation, data: DataConfig, source: Source, options: Any) -> list[Record]:
    """The experiment's own evaluation on held-out images."""
    if run.stage.evaluate is None:
        raise UserError(f"run={run.folder}: {run.stage.name} has no evaluation of its own; name --metrics")
    if given.num > len(source):
        raise UserError(f"num={given.num}: the {data.split} split of {data.name} has {len(source)} images")
    num = min(given.num or 256, len(source))
    size = rounded_down(min(given.batch, num), run.mesh)
    if given.protocol:  # which counts every image, where a batch of nearly that size divides them
        size = next((n for n in range(size, size // 2, -1) if num % n == 0 and n % run.mesh.size == 0), size)
    pipeline = Pipeline(source, dataclasses.replace(data, batch_size=size), given.seed, run.mesh)
    count = max(num // size, 1)
    extra = run.stage.extra_for(run.extra, run.stage.options, run.mesh)
    values = run.stage.evaluate(run.params, extra, jax.random.key(given.seed), pipeline.batches(), count)
    held_out = scores.make_reference(source, data)
    how = {"num": count * size, "seed": given.seed, **held_out.facts()}
    subject = _subject(run, options)
    return [Record(name, float(value), how, subject) for name, value in values.items()]


def _equivariance(run: Run, given: Evaluation, names: Sequence[str], options: Any) -> list[Record]:
    """Images whose input is moved against the images moved."""
    if given.against:
        raise UserError(f"metrics={names[0]}: moves the run's generator, so goes without --against")
    num, chosen = given.num or 1000, options or run.stage.options
    size = rounded_up(min(given.batch, num), run.mesh)
    values = equivariance_of(run.stage, run.params, run.extra, run.mesh, names, num, given.seed, chosen, size)
    how = {"num": -(-num // size) * size, "batch": size, "seed": given.seed, "shift_max": 0.125, "turn_max": 1.0}
    return [Record(f"{name}_db", value, how, _subject(run, options, seed=given.seed)) for name, value in values.items()]


def _scores(
    run: Run, given: Evaluation, data: DataConfig, source: Source, metrics: Sequence[str], options: Any
) -> list[Record]:
    """Samples, or the images of a folder, against a reference set."""
    extractor = extract.open_extractor(given.extractor, data.name)
    if given.against:
        return scores.of_images(
            Path(given.against), source, data, extractor, run.mesh, metrics,
            num=given.num, reference_num=given.reference_num, batch=given.batch,
        )  # fmt: skip
    num = given.num or 1000
    size = rounded_up(min(given.batch, num), run.mesh)
    reference = scores.make_reference(source, data, given.reference_num)
    subject = _subject(run, options, seed=given.seed)
    batches = drawn(run.stage, run.params, run.extra, run.mesh, num=num, seed=given.seed, options=options, batch=size)
    return scores.measure(batches, num, reference, extractor, run.mesh, metrics, subject, size)


def _subject(run: Run, options: Any, **more: Any) -> dict[str, Any]:
    sampling = {leaf.name: leaf.value for leaf in ranges.leaves(options)} if options else {}
    if hasattr(options, "solver"):
        sampling = {"sampler": options.solver.sampler, **sampling}
    own = {"run": str(run.folder), "stage": run.stage.name, "step": run.step, "trained_on": run.stage.data.split}
    return {**own, "sampling": sampling, **more}
