"""Pictures of yours for the commands invert, edit and mix: read and fitted, compared with their inversions, written as rows."""

from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from jgen import pictures
from jgen.config import DataConfig
from jgen.data.images import read_image, scaled
from jgen.errors import UserError
from jgen.files import check_out, replacing
from jgen.metrics.image_quality import psnr
from jgen.types import Array


def fitted(path: Path, data: DataConfig, option: str = "image") -> np.ndarray:
    """A picture file [H, W, C] in [-1, 1], read as the run's own are: on its ground, resized its way.

    Says so where its size is another, and it was resized and cropped to its middle. Raises UserError for a file that is missing
    or no picture.
    """
    height, width, channels = data.shape
    if not path.is_file():
        raise UserError(f"{option}={path}: no such file")
    try:
        own = read_image(path).shape
    except UserError as error:
        why = error.__cause__ or error
        raise UserError(f"{option}={path}: can't be read; must be a PNG, JPEG or WebP picture ({why})") from error
    if own[:2] != (height, width):
        print(f"{path}: {own[0]}x{own[1]}, resized to {height}x{width}{'' if own[0] == own[1] else ', its middle'}")
    return scaled(read_image(path, channels, data.ground, (height, width), data.resize))


def fitted_all(names: Sequence[str], data: DataConfig) -> np.ndarray:
    """Picture files [B, H, W, C] in [-1, 1]. Raises UserError for none, and for those that can't be read."""
    if not names:
        raise UserError("image: name at least one picture, --image PHOTO.png")
    return np.stack([fitted(Path(name), data) for name in names])


def say_quality(names: Sequence[str], made: Array, images: np.ndarray, seconds: float) -> None:
    """Prints how near inversions [B, H, W, C] are to their pictures, and the seconds that one took without compilation."""
    for name, decibels in zip(names, np.asarray(psnr(made, jnp.asarray(images)))):
        print(f"{name}: {decibels:.1f} dB PSNR, {seconds:.2g} s a picture")


def write(columns: Sequence[np.ndarray | Array], out: str, folder: Path, name: str) -> Path:
    """Writes a sheet with a row for each picture, of these columns [B, H, W, C], or a grid of one column; returns its path.

    Raises UserError for pictures that are not finite.
    """
    path = Path(out) if out else folder / f"{name}.png"
    for i, column in enumerate(columns):
        pictures.check_finite(column, f"{name}: column {i + 1} of {len(columns)}")
    sheet = np.stack([np.asarray(column) for column in columns], 1)
    grid = pictures.grid(sheet.reshape(-1, *sheet.shape[2:]), columns=len(columns) if len(columns) > 1 else 0)
    pictures.save(grid, path)
    print(f"written: {path}")
    return path


def check_sheet(out: str, names: Sequence[str] = (), array: bool = False) -> None:
    """Raises UserError for a sheet that can't be written, or that would take the place of a picture that it is made of.

    names: those pictures, where they are named. array: an array is written beside the sheet, as by `write_array`.
    """
    if not out:
        return
    path = Path(out)
    check_out(path, (".png",))
    for name in filter(None, names):
        if path.exists() and Path(name).exists() and path.samefile(name):
            raise UserError(f"out={out}: is one of the pictures to read; name another file")
    beside = _array_path(path)
    if array and beside.exists() and not path.exists():
        raise UserError(f"out={out}: {beside}, which would be written beside it, is there already; name another file")


def _array_path(sheet: Path) -> Path:
    return sheet.with_suffix(".npy")


def write_array(array: Array, sheet: Path, what: str) -> None:
    """Writes an array as .npy beside a sheet."""
    path = _array_path(sheet)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.save(file, np.asarray(array))
    print(f"{what}: {path}")
