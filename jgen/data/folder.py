"""A folder of PNG, JPEG or WebP images, decoded one at a time; the class of an image is its subfolder."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from jgen.config.data import Resize
from jgen.data.images import check_ground, image_files, read_image, say_passed_over
from jgen.data.source import Example
from jgen.errors import UserError


class FolderSource:
    """Images resized so that the shorter side fits, then cropped in the centre, to [resolution, resolution, channels].

    Only names are kept, so a folder of a million images takes a few hundred MB at most. Files of other kinds are passed over
    and counted. Images that can't be decoded stop it, or with skip_bad are replaced by the next good one and counted.
    Transparent pixels show the ground. Raises UserError for a folder without images, and a ground that is no colour.
    """

    endless = False

    def __init__(
        self, folder: Path, resolution: int, channels: int, skip_bad: bool = False, ground: str = "white",
        resize: Resize = "bicubic",
    ):  # fmt: skip
        if not folder.is_dir():
            problem = "no such folder"
            if folder.exists():
                problem = "a file, not a folder"
            elif folder.parts[:1] == ("~",):
                problem = "no such folder; a shell does not expand ~ there, write $HOME"
            raise UserError(f"data.name=folder:{folder}: {problem}")
        check_ground(ground)
        self.folder, self.skip_bad, self.ground = folder, skip_bad, ground
        self.resize: Resize = resize
        self.shape = (resolution, resolution, channels)
        self.files, others = image_files(folder)
        if others:
            say_passed_over(folder, tuple(others.most_common()))
        self.classes = tuple(sorted({name.split(os.sep)[0] for name in self.files if os.sep in name}))
        if self.classes and any(os.sep not in name for name in self.files):
            self.classes = ()  # images beside the subfolders have no class, so the set has none

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int, /) -> Example:
        name = self.files[index]
        image = read_image(self.folder / name, self.shape[2], self.ground, self.shape[:2], self.resize)
        example: dict[str, Any] = {"image": image}
        if self.classes:
            example["label"] = np.int32(self.classes.index(name.split(os.sep)[0]))
        return example

    def paths(self) -> list[Path]:
        """The files, whose times and sizes tell whether the set has changed."""
        return [self.folder / name for name in self.files]
