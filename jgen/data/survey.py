"""A look at a set of images: how many there are, of what sizes, in colour or not, and with which labels."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from jgen.config import DataConfig
from jgen.config.auto import SetFacts
from jgen.data.folder import FolderSource
from jgen.data.images import FORMATS, UNREADABLE, read_image, unreadable
from jgen.data.sources import open_source
from jgen.errors import UserError

T = TypeVar("T")
HEADERS, LOOKED_AT = 2000, 64
"""Images whose size is read, and those whose colours are: evenly spread over the set."""
GREY_TO = 4
"""Levels by which the channels of a grey image may differ, since JPEG rounds."""


def survey(config: DataConfig) -> SetFacts:
    """The facts of a set; of a folder by its files as they are. Raises UserError for a set that is empty or can't be read."""
    kind, _, rest = config.name.partition(":")
    if kind == "folder" and rest:
        return _folder(FolderSource(Path(rest), 8, 3, config.skip_bad, config.ground), config)
    source = open_source(config)
    labels = [int(source[i]["label"]) for i in _spread(len(source), HEADERS)] if source.classes else []
    height, width, channels = source.shape
    least = min(Counter(labels).values(), default=0) * len(source) // max(len(labels), 1)
    resizable = kind in ("emoji", "glyphs")
    return SetFacts(len(source), min(height, width), 1, resizable, channels, len(source.classes), least)


def _folder(source: FolderSource, config: DataConfig) -> SetFacts:
    count = min(len(source), config.limit or len(source))
    files = source.paths()[:count]
    sizes = _good(files, HEADERS, _size, config.skip_bad)
    colours = _good(files, LOOKED_AT, lambda path: _coloured(path, config.ground), config.skip_bad)
    of_class = Counter(name.split(os.sep)[0] for name in source.files[:count]) if source.classes else {}
    least = min((of_class.get(name, 0) for name in source.classes), default=0)
    side = int(np.quantile([min(size) for size in sizes], 0.1, method="lower"))
    return SetFacts(count, side, len(set(sizes)), True, 3 if any(colours) else 1, len(source.classes), least)


def _spread(count: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(int)).tolist()


def _good(files: Sequence[Path], most: int, read: Callable[[Path], T], skip_bad: bool) -> list[T]:
    """Reads files spread over a folder; bad ones stop it, or are skipped."""
    found: list[T] = []
    first: UserError | None = None
    for i in _spread(len(files), most):
        try:
            found.append(read(files[i]))
        except UserError as error:
            if not skip_bad:
                raise
            first = first or error
    if not found:
        raise first or UserError("the set holds no images")
    return found


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.size
    except UNREADABLE as error:
        raise unreadable(path, error) from error


def _coloured(path: Path, ground: str) -> bool:
    pixels = read_image(path, 0, ground, (32, 32)).astype(int)
    return bool(pixels.shape[2] == 3 and np.ptp(pixels, axis=2).max() > GREY_TO)
