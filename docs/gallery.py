"""Keeps samples of runs, and composes docs/gallery.png of all that are kept:  python -m docs.gallery [runs/*/NAME]

A run's first samples, none of them chosen, become docs/samples/EXPERIMENT.png, in place of an earlier run's; the gallery has a
line for each file there, family by family, with pixels enlarged by whole numbers. Below stand the upper halves of the pictures
that --below names. --over-training writes docs/families/PAGE.png instead, a picture for each family of the runs: the same noise
after some of their steps. --grids takes grids EXPERIMENT.png, as `sample --num 256 --out` writes them, for docs/grids.md.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from docs import results
from jgen import pictures
from jgen.train import over_training as taken

HERE = Path(__file__).resolve().parent
KEPT = HERE / "samples"
SIDE, GAP, COUNT, LABEL, TIMES = 64, 2, 5, 18, 4
"""Pixels of a sample at most and between samples, samples of a run, the height of a line of text, steps of a run at most."""
WIDTH = COUNT * (SIDE + GAP)
COLUMNS, MARGIN = 3, 12


def samples(run: Path) -> tuple[str, np.ndarray] | None:
    """(the experiment's name, its first samples [COUNT, H, W, 3]) of a run; None where it has none yet."""
    found = sorted(run.glob("**/samples.png"), key=lambda path: path.stat().st_mtime)
    if not found or not (run / "config.json").is_file():
        return None
    stored = json.loads((run / "config.json").read_text())
    height, width, _ = stored["config"]["data"]["shape"]
    with Image.open(found[-1]) as picture:
        return stored["module"].split(".")[-1], pictures.tiles(picture, height, width)[:COUNT]


def over_training(run: Path) -> tuple[str, list[Image.Image]] | None:
    """(the experiment's name, a picture of at most `TIMES` lines) of a run; None where it wrote fewer than two grids."""
    if not (run / "config.json").is_file():
        return None
    stored = json.loads((run / "config.json").read_text())
    name, shape = stored["module"].split(".")[-1], stored["config"]["data"]["shape"]
    for folder in sorted(run.glob("**/samples"), key=lambda path: path.stat().st_mtime, reverse=True):
        if found := taken.over_training(folder.parent, shape):
            steps, images = found
            shown = [round(i) for i in np.linspace(0, len(steps) - 1, min(len(steps), TIMES))]
            lines = [strip(f"{name}, {steps[i]:,} steps", images[:, i]) for i in shown]
            return name, lines
    return None


def stacked(lines: list[Image.Image], height: int) -> Image.Image:
    """Lines below each other in a picture of some height."""
    picture = Image.new("RGB", (WIDTH, height), "white")
    for i, line in enumerate(lines):
        picture.paste(line, (0, i * line.height))
    return picture


def strip(name: str, images: np.ndarray) -> Image.Image:
    """A line of samples under the name of their experiment."""
    line = Image.new("RGB", (WIDTH, LABEL + SIDE + GAP), "white")
    ImageDraw.Draw(line).text((0, 1), name, "black", ImageFont.load_default(13))
    for i, image in enumerate(images):
        times = max(1, SIDE // max(image.shape[:2]))
        enlarged = Image.fromarray(image).resize((image.shape[1] * times, image.shape[0] * times), Image.Resampling.NEAREST)
        line.paste(enlarged, (i * (SIDE + GAP), LABEL))
    return line


def keep(name: str, images: np.ndarray) -> None:
    """Stores an experiment's samples [N, H, W, 3], side by side, as its line of the gallery."""
    KEPT.mkdir(exist_ok=True)
    Image.fromarray(np.concatenate(list(images), 1)).save(KEPT / f"{name}.png", optimize=True)


def kept() -> dict[str, np.ndarray]:
    """The samples [N, H, W, 3] of experiments that have some, in the order of the families."""
    found = {}
    for name in (name for family in results.read()["families"] for name in family["experiments"]):
        if (path := KEPT / f"{name}.png").is_file():
            with Image.open(path) as picture:
                row = np.asarray(picture.convert("RGB"))
            found[name] = np.stack(np.split(row, row.shape[1] // len(row), 1))[:COUNT]
    return found


def compose(lines: list[Image.Image], below: list[Path]) -> Image.Image:
    """Lines of one height in columns, and pictures as wide as all of these below them."""
    columns = min(len(lines), COLUMNS)
    width, each = columns * WIDTH + (columns + 1) * MARGIN, -(-len(lines) // columns)
    pictures = []
    for path in below:
        with Image.open(path) as picture:
            upper = picture.convert("RGB").crop((0, 0, picture.width, picture.height // 2))
            size = width - 2 * MARGIN, round(upper.height * (width - 2 * MARGIN) / upper.width)
            pictures.append(upper.resize(size, Image.Resampling.BOX))
    step = lines[0].height + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + each * step + sum(p.height + MARGIN for p in pictures)), "white")
    for i, line in enumerate(lines):
        sheet.paste(line, (MARGIN + (i // each) * (WIDTH + MARGIN), MARGIN + (i % each) * step))
    top = MARGIN + each * step
    for picture in pictures:
        sheet.paste(picture, (MARGIN, top))
        top += picture.height + MARGIN
    return sheet


def save_families(runs: list[Path]) -> None:
    """Writes the pictures over training of the families that some runs are of."""
    blocks = dict(sorted(each for run in runs if (each := over_training(run))))
    for family in results.read()["families"]:
        own = [blocks[name] for name in family["experiments"] if name in blocks]
        if own:
            height = max(len(lines) for lines in own) * own[0][0].height
            path = HERE / "families" / f"{family['page']}.png"
            compose([stacked(lines, height) for lines in own], []).quantize(64).save(path, optimize=True)
            print(path)


def keep_grids(paths: list[Path]) -> None:
    """Stores grids of samples, each EXPERIMENT.png, as docs/grids/EXPERIMENT.webp."""
    for path in paths:
        with Image.open(path) as picture:
            picture.save(HERE / "grids" / f"{path.stem}.webp", quality=70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--over-training", action="store_true", help="The families' pictures over training.")
    parser.add_argument("--grids", nargs="*", type=Path, help="Grids of 256 samples of Fashion-MNIST, EXPERIMENT.png.")
    parser.add_argument("--below", nargs="*", type=Path, default=[HERE / "inpainted.png"])
    parser.add_argument("--out", type=Path, default=HERE / "gallery.png")
    given = parser.parse_args()
    if given.grids:
        return keep_grids(given.grids)
    if given.over_training:
        return save_families(given.runs)
    for run in given.runs:
        if found := samples(run):
            keep(*found)
    lines = kept()
    compose([strip(*each) for each in lines.items()], given.below).quantize(256).save(given.out, optimize=True)
    print(f"{given.out}: {', '.join(lines)}")


if __name__ == "__main__":
    main()
