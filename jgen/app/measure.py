"""The commands of `python -m jgen.metrics`."""

import functools
from pathlib import Path

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

from jgen.app.load import load
from jgen.app.metrics_command import Compare, Export, Pairs, Plot, Score, Steps
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.data.sources import check_split
from jgen.errors import UserError
from jgen.files import check_out
from jgen.metrics import by_steps, extract, image_quality, record, scores, trade_off
from jgen.metrics.image_sets import image_batches, pair, read_images
from jgen.metrics.lpips import open_lpips
from jgen.sharding import make_mesh
from jgen.train.stage import count


def compare(given: Compare) -> None:
    rows = record.compare(record.read(Path(given.a)), record.read(Path(given.b)))
    table("measure", [given.a, given.b, "b - a"], [(name, a, b, b - a) for name, a, b in rows])


def score(given: Score) -> None:
    if given.out:
        check_out(Path(given.out), (".json",))
    check_split(given.data)
    metrics, mesh = scores.parse(given.metrics), make_mesh()
    rows = scores.of_images(
        Path(given.images), open_source(given.data), given.data, extract.open_extractor(given.extractor, given.data.name),
        mesh, metrics, num=given.num, reference_num=given.reference_num, batch=given.batch,
    )  # fmt: skip
    table("measure", [given.images], [(row.metric, row.value) for row in rows])
    if given.out:
        record.write(rows, Path(given.out))
        print(f"written: {given.out}")


def pairs(given: Pairs) -> None:
    names = list(scores.parse(given.metrics, dict.fromkeys(("psnr", "ssim", "ms_ssim", "lpips"), "")))
    if "lpips" not in names:
        for option in ("trunk", "heads"):
            if value := getattr(given, option):
                raise UserError(f"{option}={value}: has no effect without --metrics lpips; leave it out")
    known = {"psnr": image_quality.psnr, "ssim": image_quality.ssim, "ms_ssim": image_quality.ms_ssim}
    if "lpips" in names:
        distance, weights = open_lpips(given.trunk, given.heads)
        known["lpips"] = functools.partial(distance, weights)
    sides = (read_images(Path(getattr(given, side)), given.ground, side) for side in ("a", "b"))
    a, b, left_out = pair(*sides)
    if left_out:
        shown = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
        print(f"left out, since only one side has them: {len(left_out)} ({shown})")
    rows = []
    for name in names:
        run, values = jax.jit(known[name]), []
        for x, y in zip(image_batches(a, len(a), 64), image_batches(b, len(b), 64)):
            values.append(np.asarray(run(scaled(x), scaled(y))))
        rows.append((name, float(np.concatenate(values)[: len(a)].mean())))
    table("measure", [f"mean of {len(a)} pairs"], rows)


def plot(given: Plot) -> None:
    check_out(Path(given.out), (".png",))
    trade_off.plot(record.read(Path(given.file)), Path(given.out), given.x, given.y)
    print(f"written: {given.out}")


def steps(given: Steps) -> None:
    check_out(Path(given.out), (".png",))
    rows = [row for file in given.files for row in record.read(Path(file))]
    of_metric = [row for row in rows if given.metric in (row.metric, row.metric.split("_")[0])]
    if rows and not of_metric:
        raise UserError(f"metric={given.metric}: not in these files; there are {', '.join(sorted({r.metric for r in rows}))}")
    by_steps.plot(of_metric, Path(given.out))
    print(f"written: {given.out}")


def export(given: Export) -> None:
    if given.out:
        check_out(Path(given.out), (".npz",))
    run = load(given.run)
    data, network = run.stage.data, run.config.network
    if run.stage.name != "classifier" or getattr(network, "noisy", True):
        raise UserError(f"run={given.run}: must be a run of experiments.classifier, on clean images")
    name = f"{data.name.replace(':', '_').replace('/', '_')}_cnn"
    meta = {
        "name": name, "classes": data.num_classes, "channels": list(network.channels), "stride": network.stride,
        "shape": list(data.shape), "step": run.step,
    }  # fmt: skip
    out = Path(given.out or f"{name}.npz")
    extract.export(run.params["net"], meta, out)
    print(f"{name}: {count(run.params['net'])} weights, {out.stat().st_size / 1000:.0f} kB: {out}")


def table(first: str, columns: list[str], rows: list[tuple]) -> None:
    """Prints rows of a name and numbers."""
    shown = Table()
    shown.add_column(first)
    for column in columns:
        shown.add_column(column, justify="right", overflow="fold")
    for name, *values in rows:
        shown.add_row(name, *(f"{v:.5f}" for v in values))
    Console(soft_wrap=True).print(shown)
