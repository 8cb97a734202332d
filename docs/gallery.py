"""Composes docs/gallery.png of the samples that runs have written:  python -m docs.gallery runs/*/NAME

A line for each run, with the first samples of its last grid: none is chosen, and pixels are enlarged by whole numbers. Below
stand the upper halves of the pictures that --below names.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
SIDE, GAP, COUNT, LABEL = 40, 2, 9, 18
"""Pixels of a sample and between samples, samples of a run, and the height of a line of text."""
WIDTH = COUNT * (SIDE + GAP)
MARGIN = 12


def tiles(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """The images [N, H, W, 3] of a grid that `jgen.pictures.grid` made. Raises ValueError for any other picture."""
    for factor in range(picture.width // (width + 2), 0, -1):
        columns, rows = picture.width // factor // (width + 1), picture.height // factor // (height + 1)
        if picture.size == (factor * (columns * (width + 1) + 1), factor * (rows * (height + 1) + 1)):
            small = np.asarray(picture.convert("RGB"))[factor // 2 :: factor, factor // 2 :: factor]
            inner = small[1:, 1:].reshape(rows, height + 1, columns, width + 1, 3)[:, :height, :, :width]
            return inner.swapaxes(1, 2).reshape(-1, height, width, 3)
    raise ValueError("no grid of samples")


def samples(run: Path) -> tuple[str, np.ndarray] | None:
    """(the experiment's name, its first samples [COUNT, H, W, 3]) of a run; None where it has none yet."""
    found = sorted(run.glob("**/samples.png"), key=lambda path: path.stat().st_mtime)
    if not found or not (run / "config.json").is_file():
        return None
    stored = json.loads((run / "config.json").read_text())
    height, width, _ = stored["config"]["data"]["shape"]
    with Image.open(found[-1]) as picture:
        return stored["module"].split(".")[-1], tiles(picture, height, width)[:COUNT]


def strip(name: str, images: np.ndarray) -> Image.Image:
    """A line of samples under the name of their experiment."""
    line = Image.new("RGB", (WIDTH, LABEL + SIDE + GAP), "white")
    ImageDraw.Draw(line).text((0, 1), name, "black", ImageFont.load_default(13))
    for i, image in enumerate(images):
        enlarged = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.NEAREST)
        line.paste(enlarged, (i * (SIDE + GAP), LABEL))
    return line


def compose(lines: list[Image.Image], below: list[Path]) -> Image.Image:
    """Lines in two columns, and pictures as wide as both below them."""
    width, half = 2 * WIDTH + 3 * MARGIN, -(-len(lines) // 2)
    pictures = []
    for path in below:
        with Image.open(path) as picture:
            upper = picture.convert("RGB").crop((0, 0, picture.width, picture.height // 2))
            size = width - 2 * MARGIN, round(upper.height * (width - 2 * MARGIN) / upper.width)
            pictures.append(upper.resize(size, Image.Resampling.BOX))
    step = LABEL + SIDE + GAP + MARGIN
    sheet = Image.new("RGB", (width, MARGIN + half * step + sum(p.height + MARGIN for p in pictures)), "white")
    for i, line in enumerate(lines):
        sheet.paste(line, (MARGIN + (i // half) * (WIDTH + MARGIN), MARGIN + (i % half) * step))
    top = MARGIN + half * step
    for picture in pictures:
        sheet.paste(picture, (MARGIN, top))
        top += picture.height + MARGIN
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--below", nargs="*", type=Path, default=[HERE / "inpainted.png"])
    parser.add_argument("--out", type=Path, default=HERE / "gallery.png")
    given = parser.parse_args()
    found = dict(sorted(each for run in given.runs if (each := samples(run))))
    compose([strip(*each) for each in found.items()], given.below).quantize(256).save(given.out, optimize=True)
    print(f"{given.out}: {', '.join(found)}")


if __name__ == "__main__":
    main()
