"""Image files as people have them: the one reader that training, scores and pairs share.

Turned as their EXIF data say, 16 bits brought to 8, transparent pixels laid on a ground; files that are no images and hidden
folders passed over.
"""

import functools
import os
import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor, ImageOps

from jgen.config.data import Resize
from jgen.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
"""Formats of Pillow that are read, whatever a file's name says; of others some run a program, as EPS does."""
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""The errors that Pillow raises for a damaged file, by its format and by where the damage is."""
ADVICE = "; --data.skip-bad passes over it"
"""The advice of a damaged file's error."""
GREY = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes without colours."""
NO_CLASS = ("__MACOSX", "@eaDir", "lost+found")
"""Folders that archives and file servers leave behind; so are those whose names begin with a dot."""


class Files(NamedTuple):
    """The image files below a folder."""

    names: tuple[str, ...]
    """Relative to the folder, sorted."""
    passed_over: Counter[str]
    """How many files of other kinds there are, by their suffix."""


def scaled(images: np.ndarray) -> np.ndarray:
    """Images in [-1, 1]: of uint8 levels float32, others as they are."""
    return images / np.float32(127.5) - 1 if images.dtype == np.uint8 else images


def image_files(folder: Path) -> Files:
    """The image files below a folder, those in linked folders too. Raises UserError where there are none."""
    names, passed_over = [], Counter()
    for path in _walk(folder):
        if path.lower().endswith(SUFFIXES):
            names.append(os.path.relpath(path, folder))
        else:
            passed_over[os.path.splitext(path)[1].lower() or os.path.basename(path)] += 1
    if not names:
        others = f", of others {_counts(passed_over.most_common())}" if passed_over else ""
        raise UserError(f"{folder}: holds no {', '.join(SUFFIXES)} files{others}")
    return Files(tuple(sorted(names)), passed_over)


def _walk(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder that are not hidden; each linked folder once, so that no circle is endless."""
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if f[0] != "." and f not in NO_CLASS)
        yield from (os.path.join(parent, name) for name in sorted(names) if name[0] != ".")


@functools.cache
def say_passed_over(folder: Path, kinds: tuple[tuple[str, int], ...]) -> None:
    """Prints, once a folder, how many files are of other kinds."""
    number = sum(count for _, count in kinds)
    what = "file that is not" if number == 1 else "files that are not"
    print(f"{folder}: passed over {number} {what} PNG, JPEG or WebP ({_counts(kinds)})", file=sys.stderr)


def _counts(kinds: Sequence[tuple[str, int]]) -> str:
    """The counts of the first kinds of files."""
    return ", ".join(f"{count} {kind}" for kind, count in kinds[:5]) + (", ..." if len(kinds) > 5 else "")


def unreadable(where: Any, error: Exception) -> UserError:
    """The error of a file that can't be decoded."""
    return UserError(f"{where}: truncated or not an image{ADVICE} ({error})")


def without_advice(error: UserError) -> str:
    """Such an error's words for those who gave the option already."""
    return str(error).replace(ADVICE, "")


def check_ground(ground: str) -> tuple[int, int, int]:
    """The colour of a ground's name (white, black, #808080, ...). Raises UserError where it is none."""
    try:
        return ImageColor.getrgb(ground)[:3]
    except ValueError as error:
        raise UserError(f"data.ground={ground}: must be a colour, such as white, black or #808080") from error


def eight_bits(image: Image.Image, channels: int = 0, ground: str = "white") -> Image.Image:
    """An image turned upright, with 8 bits, in grey ("L") or colours ("RGB"), without transparency.

    channels: 1 or 3; 0 keeps grey images grey. ground: the colour that shows through. Raises ValueError for floats, whose
    white may be any number.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floats; must be whole numbers of 8 or 16 bits")
    image = ImageOps.exif_transpose(image)
    grey = image.mode in GREY
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        under = Image.new("RGBA", image.size, (*check_ground(ground), 255))
        image = Image.alpha_composite(under, image).convert("RGB")
    return image.convert("L" if (channels or (1 if grey else 3)) == 1 else "RGB")


def _from_16_bits(image: Image.Image) -> Image.Image:
    """Levels 0..65535 as 0..255; what is transparent there stays so."""
    values = np.asarray(image).astype(np.float64)
    levels = Image.fromarray(np.clip(np.round(values / 257), 0, 255).astype(np.uint8))
    hidden = image.info.get("transparency")
    if isinstance(hidden, int):
        levels.putalpha(Image.fromarray(np.where(values == hidden, 0, 255).astype(np.uint8)))
    return levels


def fit(image: Image.Image, size: tuple[int, int], how: Resize = "bicubic") -> Image.Image:
    """An image resized until the shorter side fits `size` (height, width), and cropped to its middle.

    "adm" halves it by boxes while both sides are at least twice as large (Dhariwal & Nichol 2021), then resizes by bicubic.
    """
    height, width = size
    while how == "adm" and image.width >= 2 * width and image.height >= 2 * height:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    filters = {"box": Image.Resampling.BOX, "lanczos": Image.Resampling.LANCZOS}
    return ImageOps.fit(image, (width, height), filters.get(how, Image.Resampling.BICUBIC))


def read_image(
    path: Path, channels: int = 0, ground: str = "white", size: tuple[int, int] | None = None, how: Resize = "bicubic"
) -> np.ndarray:
    """One image file as uint8 [H, W, 1 or 3]; with `size` (height, width) by `fit`.

    Raises UserError that names the file where it can't be read.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            image = eight_bits(image, channels, ground)
            if size is not None and image.size != size[::-1]:
                image = fit(image, size, how)
    except UserError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels
