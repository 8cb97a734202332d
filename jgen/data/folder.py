"""A folder of PNG, JPEG or WebP images, decoded one at a time; the class of an image is its subfolder."""

import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from jgen.data.source import Example
from jgen.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
"""The errors that Pillow raises for a damaged file, by its format and by where the damage is."""


class FolderSource:
    """Images resized so that the shorter side fits, then cropped in the centre, to [resolution, resolution, channels].

    Only names are kept, so a folder of a million images takes a few hundred MB at most. Without skip_bad a file that
    is no image stops at once; with it, files that can't be decoded are replaced by the next good one and counted.
    """

    endless = False

    def __init__(self, folder: Path, resolution: int, channels: int, skip_bad: bool = False):
        if not folder.is_dir():
            raise UserError(f"data.name=folder:{folder}: no such folder")
        self.folder, self.skip_bad = folder, skip_bad
        self.shape = (resolution, resolution, channels)
        self.files = sorted(_files(folder, skip_bad))
        if not self.files:
            raise UserError(f"data.name=folder:{folder}: holds no {', '.join(SUFFIXES)} files")
        self.classes = tuple(sorted({name.split(os.sep)[0] for name in self.files if os.sep in name}))
        if self.classes and any(os.sep not in name for name in self.files):
            self.classes = ()  # images beside the subfolders have no class, so the set has none

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Example:
        name = self.files[index]
        example: dict[str, Any] = {"image": decode(self.folder / name, self.shape)}
        if self.classes:
            example["label"] = np.int32(self.classes.index(name.split(os.sep)[0]))
        return example


def _files(folder: Path, skip_bad: bool) -> Any:
    for parent, folders, names in os.walk(folder):
        folders[:] = [f for f in folders if f[0] != "."]
        for name in names:
            if name.lower().endswith(SUFFIXES):
                yield os.path.relpath(os.path.join(parent, name), folder)
            elif name[0] != "." and not skip_bad:
                raise UserError(
                    f"{os.path.join(parent, name)}: not an image ({', '.join(SUFFIXES)}); --data.skip-bad passes over it"
                )


def decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """One image file as uint8 of `shape`. Raises UserError naming the file where it can't be read."""
    try:
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image).convert("RGB" if shape[2] == 3 else "L")
            fitted = ImageOps.fit(image, (shape[1], shape[0]), Image.Resampling.BICUBIC)
    except UNREADABLE as error:
        raise UserError(f"{path}: truncated or not an image; --data.skip-bad passes over it ({error})") from error
    return np.asarray(fitted).reshape(shape)
