"""Pictures of yours for the commands invert, edit and mix: read and fitted, compared with their inversions, written as rows."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jgen import pictures
from jgen.data.images import read_image, scaled
from jgen.errors import UserError
from jgen.metrics.image_quality import psnr
from jgen.types import Array


def fitted(path: Path, shape: tuple[int, ...], option: str = "image") -> np.ndarray:
    """A picture file [H, W, C] in [-1, 1]; says so where its size is another, and it was resized and cropped to its middle.

    Raises UserError for a file that is missing or no picture.
    """
    height, width, channels = shape
    if not path.is_file():
        raise UserError(f"{option}={path}: no such file")
    try:
        own = read_image(path).shape
    except UserError as error:
        raise UserError(f"{option}={path}: can't be read; must be a PNG, JPEG or WebP picture") from error
    if own[:2] != (height, width):
        print(f"{path}: {own[0]}x{own[1]}, resized to {height}x{width}{'' if own[0] == own[1] else ', its middle'}")
    return scaled(read_image(path, channels, size=(height, width)))


def fitted_all(names: Sequence[str], shape: tuple[int, ...]) -> np.ndarray:
    """Picture files [B, H, W, C] in [-1, 1]. Raises UserError for none, and for those that can't be read."""
    if not names:
        raise UserError("image: name at least one picture, --image PHOTO.png")
    return np.stack([fitted(Path(name), shape) for name in names])


def say_quality(names: Sequence[str], made: Array, images: np.ndarray, seconds: float) -> None:
    """Prints how near inversions [B, H, W, C] are to their pictures, and the seconds that one took without compilation."""
    for name, decibels in zip(names, np.asarray(psnr(made, jnp.asarray(images)))):
        print(f"{name}: {decibels:.1f} dB PSNR, {seconds:.2g} s a picture")


def write(columns: Sequence[np.ndarray | Array], out: str, folder: Path, name: str) -> Path:
    """Writes a sheet with a row for each picture, of these columns [B, H, W, C], or a grid of one column; returns its path."""
    path = Path(out) if out else folder / f"{name}.png"
    check_out(out)
    sheet = np.stack([np.asarray(column) for column in columns], 1)
    grid = pictures.grid(sheet.reshape(-1, *sheet.shape[2:]), columns=len(columns) if len(columns) > 1 else 0)
    pictures.save(grid, path)
    print(f"written: {path}")
    return path


def check_out(out: str) -> None:
    """Raises UserError for a sheet that is not to be a .png."""
    if out and Path(out).suffix != ".png":
        raise UserError(f"out={out}: must be a .png")


def write_array(array: Array, sheet: Path, what: str) -> None:
    """Writes an array as .npy beside a sheet."""
    path = sheet.with_suffix(".npy")
    np.save(path, np.asarray(array))
    print(f"{what}: {path}")
