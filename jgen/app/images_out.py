"""Where samples are written: a grid, arrays, or a folder with a file an image."""

from pathlib import Path

import numpy as np
from PIL import Image

from jgen import pictures
from jgen.data.images import SUFFIXES
from jgen.errors import UserError
from jgen.files import check_out, replacing

WRITTEN = (".png", ".npz", "")
"""Suffixes of what images are written to: a grid, arrays, or a folder."""


def check_images_out(path: Path, num: int) -> None:
    """Raises UserError where `num` images can't be written, or would stand in a folder among others as if of them."""
    check_out(path, WRITTEN)
    if path.suffix or not path.is_dir():
        return
    images = [each.name for each in path.iterdir() if each.name.lower().endswith(SUFFIXES)]
    names = {_name(i) for i in range(num)}
    if others := sorted(name for name in images if name not in names):
        first = f"{others[0]}{f' and {len(others) - 1} more' if others[1:] else ''}"
        raise UserError(f"out={path}: holds images that are none of these {num} ({first}); name a new folder")


def _name(i: int) -> str:
    return f"{i:06d}.png"


def write_images(images: np.ndarray, path: Path, about: str = "", columns: int = 0) -> None:
    """A .png grid with a description, an .npz of uint8 under "images", or a folder with one PNG an image.

    columns: of the grid; 0 makes it about square.
    Raises UserError for another suffix, and for a folder that holds other images.
    """
    check_images_out(path, len(images))
    if path.suffix == ".png":
        return pictures.save(pictures.grid(images, columns), path, about)
    if path.suffix == ".npz":
        with replacing(path) as temporary, open(temporary, "wb") as file:
            return np.savez_compressed(file, images=pictures.to_bytes(images))
    for i, image in enumerate(pictures.to_bytes(images)):
        pictures.save(Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image), path / _name(i))
    return None
