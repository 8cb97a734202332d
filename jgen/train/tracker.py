"""Weights & Biases as a second place for the records of a run: --train.wandb PROJECT."""

import hashlib
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from jgen.errors import UserError


class Wandb:
    """Called as tensorboardX's SummaryWriter is. A resumed run goes on in the page of its folder."""

    def __init__(self, project: str, folder: Path):
        try:
            self.wandb: Any = importlib.import_module("wandb")
        except ImportError as error:
            raise UserError(f"train.wandb={project}: the package is not installed; pip install wandb") from error
        place = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        how = {"settings": self.wandb.Settings(symlink=False)}  # a run's folder holds no links
        try:
            self.run = self.wandb.init(project=project, name=str(folder), id=place, resume="allow", dir=str(folder), **how)
        except Exception as error:  # whatever the package says of a login or a network
            raise UserError(f"train.wandb={project}: {str(error).strip() or type(error).__name__}") from error

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Records a number of a step."""
        self.run.log({name: value}, step=step)

    def add_image(self, name: str, pixels: np.ndarray, step: int, dataformats: str = "HWC") -> None:
        """Records a picture, uint8 [H, W, C], of a step."""
        self.run.log({name: self.wandb.Image(pixels)}, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self.run.finish()
