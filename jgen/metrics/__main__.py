"""python -m jgen.metrics compare A B | score IMAGES | pairs A B | plot FILE | steps FILES | export RUN."""

import dataclasses
import functools
import sys
from pathlib import Path

import tyro
from rich.console import Console
from rich.table import Table

from jgen.config import DataConfig, check_at_least
from jgen.errors import UserError

Positional = tyro.conf.Positional


@dataclasses.dataclass(frozen=True)
class Compare:
    """Two files of scores side by side; refused, with the difference named, where they were measured differently."""

    a: Positional[str]
    """A JSON file that `evaluate` or `score` wrote."""
    b: Positional[str]


@dataclasses.dataclass(frozen=True)
class Score:
    """Scores any images against a set, without a run."""

    images: Positional[str]
    """A folder of PNG, JPEG or WebP files, or an .npz with uint8 "images"."""
    data: DataConfig = DataConfig()
    """The reference; its split is --data.split."""
    metrics: str = "fd,kid,pr"
    """Any of fd,kid,is,pr,dc."""
    extractor: str = ""
    """The one jgen ships for the set unless given, or inception:FILE, vgg16:FILE, alexnet:FILE, cnn:FILE."""
    num: int = 0
    """Images; 0 for all."""
    reference_num: int = 0
    """Images of the reference; 0 for all (10,000 of an endless set)."""
    batch: int = 64
    """Images at a time."""
    out: str = ""
    """The JSON to write; none where no name is given."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Mean similarity of two folders of images, pair by pair in the order of their names."""

    a: Positional[str]
    b: Positional[str]
    metrics: str = "psnr,ssim"
    """Any of psnr,ssim,ms_ssim,lpips."""
    trunk: str = ""
    """For lpips: torchvision's VGG16 or AlexNet weights, a .pth file."""
    heads: str = ""
    """For lpips: its linear heads, vgg.pth or alex.pth of the lpips package."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Writes the network of a classifier's run as a feature extractor (float16), for cnn:FILE."""

    run: Positional[str]
    out: str = ""
    """The .npz to write; SET_cnn.npz where none is given."""


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draws fidelity against diversity over a scale of guidance, from what `experiments.guided evaluate` wrote."""

    file: Positional[str]
    """A JSON file of records named MEASURE at KNOB=VALUE."""
    x: str = "recall"
    y: str = "precision"
    out: str = "trade_off.png"
    """The PNG to write."""


@dataclasses.dataclass(frozen=True)
class Steps:
    """Draws a score over the steps of samplers, a line a sampler, from what `evaluate --metrics` wrote of one run."""

    files: Positional[tuple[str, ...]]
    """JSON files of scores."""
    metric: str = "fd"
    """The one to draw: its name, or what stands before its first underscore."""
    out: str = "by_steps.png"
    """The PNG to write."""


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    names = {"compare": Compare, "score": Score, "pairs": Pairs, "plot": Plot, "steps": Steps, "export": Export}
    options = tyro.extras.subcommand_cli_from_dict(names, prog="python -m jgen.metrics", args=args)  # pyright: ignore
    try:
        {Compare: compare, Score: score, Pairs: pairs, Plot: plot, Steps: steps, Export: export}[type(options)](options)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def compare(given: Compare) -> None:
    from jgen.metrics import record

    rows = record.compare(record.read(Path(given.a)), record.read(Path(given.b)))
    table("measure", [given.a, given.b, "b - a"], [(name, a, b, b - a) for name, a, b in rows])


def score(given: Score) -> None:
    from jgen.data import open_source
    from jgen.metrics import extract, record, scores
    from jgen.train.sharding import make_mesh

    check_at_least(0, num=given.num, reference_num=given.reference_num)
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
    import jax
    import numpy as np

    from jgen.metrics import image_quality, scores
    from jgen.metrics.lpips import open_lpips

    names = [n.strip() for n in given.metrics.split(",")]
    known = {"psnr": image_quality.psnr, "ssim": image_quality.ssim, "ms_ssim": image_quality.ms_ssim}
    if "lpips" in names:
        distance, weights = open_lpips(given.trunk, given.heads)
        known["lpips"] = functools.partial(distance, weights)
    if unknown := [n for n in names if n not in known]:
        raise UserError(f"metrics={unknown[0]}: must be among psnr, ssim, ms_ssim, lpips")
    a, b = (scores.read_images(Path(p)) for p in (given.a, given.b))
    if len(a) != len(b) or a.shape != b.shape:
        raise UserError(f"{given.a} holds {len(a)} images {a.shape}, {given.b} {len(b)} of {b.shape}; they must be pairs")
    rows = []
    for name in names:
        run, values = jax.jit(known[name]), []
        for x, y in zip(scores.image_batches(a, len(a), 64), scores.image_batches(b, len(b), 64)):
            values.append(np.asarray(run(x / np.float32(127.5) - 1, y / np.float32(127.5) - 1)))
        rows.append((name, float(np.concatenate(values)[: len(a)].mean())))
    table("measure", [f"mean of {len(a)} pairs"], rows)


def plot(given: Plot) -> None:
    from jgen.metrics import record, trade_off

    trade_off.plot(record.read(Path(given.file)), Path(given.out), given.x, given.y)
    print(f"written: {given.out}")


def steps(given: Steps) -> None:
    from jgen.metrics import by_steps, record

    rows = [row for file in given.files for row in record.read(Path(file))]
    of_metric = [row for row in rows if given.metric in (row.metric, row.metric.split("_")[0])]
    if rows and not of_metric:
        raise UserError(f"metric={given.metric}: not in these files; there are {', '.join(sorted({r.metric for r in rows}))}")
    by_steps.plot(of_metric, Path(given.out))
    print(f"written: {given.out}")


def export(given: Export) -> None:
    from jgen.experiment import count, load
    from jgen.metrics.extract import export as write

    run = load(given.run)
    config, data = run.config, run.stage.data
    if run.stage.name != "classifier" or getattr(config, "noisy", True):
        raise UserError(f"run={given.run}: must be a run of experiments.classifier, on clean images")
    name = f"{data.name.replace(':', '_').replace('/', '_')}_cnn"
    meta = {
        "name": name, "classes": data.num_classes, "channels": list(config.channels), "stride": config.stride,
        "shape": list(data.shape), "step": run.step,
    }  # fmt: skip
    out = Path(given.out or f"{name}.npz")
    write(run.params["net"], meta, out)
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


if __name__ == "__main__":
    main()
