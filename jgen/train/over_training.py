"""One picture of a stage over its training: the same noise, as the network of each step draws it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from jgen import pictures
from jgen.data.images import FORMATS, UNREADABLE

NAME = "over_training"
"""The picture's name in a run's folder."""
SEEDS, STEPS = 8, 10
"""Images that are followed, and steps that are shown, at most."""


def over_training(folder: Path, shape: Sequence[int]) -> tuple[list[int], np.ndarray] | None:
    """(steps [T], uint8 images [N, T, H, W, 3]): the first images of the sample grids that a stage wrote while it trained.

    The images of a place in those grids have one seed, so that a row is one image as it changes. shape: (H, W, C) of an image.
    At most `STEPS` steps are taken, evenly, the last among them; a file that is no such grid is passed over. None for less
    than two.
    """
    found = {}
    for path in sorted((folder / "samples").glob("*.png")):
        if path.stem.isdecimal() and (images := _images(path, shape)) is not None:
            found[int(path.stem)] = images
    if len(found) < 2:
        return None
    steps = sorted(found)
    steps = [steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(len(steps), STEPS))]
    count = min(SEEDS, *(len(found[step]) for step in steps))
    return steps, np.stack([found[step][:count] for step in steps], 1)


def _images(path: Path, shape: Sequence[int]) -> np.ndarray | None:
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return pictures.tiles(picture, *shape[:2])
    except UNREADABLE:
        return None


def save_over_training(folder: Path, shape: Sequence[int]) -> None:
    """Writes over_training.png of a stage's folder, a row an image and a column a step, where it wrote grids of two steps."""
    if (found := over_training(folder, shape)) is None:
        return
    steps, images = found
    listed = ", ".join(f"{step:,}" for step in steps)
    about = f"The same noise over training: {len(images)} images, a row each, after {listed} steps from left to right"
    sheet = pictures.grid(images.reshape(-1, *images.shape[2:]), columns=len(steps))
    pictures.save(sheet, folder / f"{NAME}.png", about)
