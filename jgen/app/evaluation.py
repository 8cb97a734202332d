"""The command evaluate: what a run's images, or its own measures on held-out ones, come to."""

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from jgen.app.load import Run, load
from jgen.app.protocol import paper
from jgen.config import DataConfig, Evaluation, MeshConfig, ranges
from jgen.data import Pipeline, Source, open_source
from jgen.errors import UserError
from jgen.files import check_out
from jgen.metrics import equivariance, extract, record, scores
from jgen.metrics.record import Record
from jgen.metrics.reference import make_reference
from jgen.progress import counted, waiting
from jgen.recipes.evaluation.equivariance import equivariance_of
from jgen.run_folder import read_config
from jgen.sharding import make_mesh, rounded_down, rounded_up
from jgen.train.draw import drawn
from jgen.train.report import show_scores


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
    with contextlib.closing(counted(pipeline.batches(), count * size, "evaluation", size)) as batches:
        values = run.stage.evaluate(run.params, extra, jax.random.key(given.seed), batches, count)
    held_out = make_reference(source, data)
    how = {"num": count * size, "seed": given.seed, **held_out.facts()}
    subject = _subject(run, options)
    return [Record(name, float(value), how, subject) for name, value in values.items()]


def _equivariance(run: Run, given: Evaluation, names: Sequence[str], options: Any) -> list[Record]:
    """Images whose input is moved against the images moved."""
    if given.against:
        raise UserError(f"metrics={names[0]}: moves the run's generator, so goes without --against")
    num, chosen = given.num or 1000, options or run.stage.options
    size = rounded_up(min(given.batch, num), run.mesh)
    with waiting(f"moving {num} images"):
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
    scores.check_num(metrics, num, f"num={num}")
    size = rounded_up(min(given.batch, num), run.mesh)
    reference = make_reference(source, data, given.reference_num)
    subject = _subject(run, options, seed=given.seed)
    batches = drawn(run.stage, run.params, run.extra, run.mesh, num=num, seed=given.seed, options=options, batch=size)
    return scores.measure(batches, num, reference, extractor, run.mesh, metrics, subject, size)


def _subject(run: Run, options: Any, **more: Any) -> dict[str, Any]:
    sampling = {leaf.name: leaf.value for leaf in ranges.leaves(options)} if options else {}
    if hasattr(options, "solver"):
        sampling = {"sampler": options.solver.sampler, **sampling}
    own = {"run": str(run.folder), "stage": run.stage.name, "step": run.step, "trained_on": run.stage.data.split}
    return {**own, "sampling": sampling, **more}
