"""The logs of a run: metrics.jsonl, TensorBoard events, and the line or bar a person watches."""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import rich.progress
from PIL import Image
from rich.console import Console
from tensorboardX import SummaryWriter

from jgen.files import replacing
from jgen.progress import progress_bar
from jgen.train.tracker import Wandb

EVERY_SECONDS = 10.0
"""Between lines where there is no terminal to draw a bar on."""


def rewind(path: Path, step: int) -> None:
    """Drops the records after `step`, and a last line that was cut short, so that a resumed run repeats none."""
    if not path.exists():
        return
    kept = [line for line in path.read_text().splitlines() if (record := _parse(line)) and record["step"] <= step]
    with replacing(path) as temporary:
        temporary.write_text("".join(line + "\n" for line in kept))


def read(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a line that was cut short is passed over."""
    return [r for line in path.read_text().splitlines() if (r := _parse(line))] if path.exists() else []


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return None


class Log:
    """Records of a run; only process 0 of several writes. Use as a context manager."""

    def __init__(self, folder: Path, step: int, steps: int, batch_size: int, active: bool = True, wandb: str = ""):
        self.active, self.step, self.steps, self.batch_size = active, step, steps, batch_size
        self.console = Console(file=sys.stderr if not sys.stdout.isatty() else sys.stdout, quiet=not active)
        self.began: float | None = None
        self.first, self.spoke, self.seconds = step, time.monotonic(), 0.0
        if not active:
            return
        rewind(folder / "metrics.jsonl", step)
        self.file = open(folder / "metrics.jsonl", "a", buffering=1)
        events = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self.trackers: list[Any] = [events, *([Wandb(wandb, folder)] if wandb else [])]
        self.bar = progress_bar(self.console, True, rich.progress.TextColumn("{task.fields[note]}"))

    def __enter__(self) -> "Log":
        if self.active:
            self.bar.start()
            self.task = self.bar.add_task("train", total=self.steps, completed=self.step, note="compiling")
        return self

    def __exit__(self, *_: Any) -> None:
        if self.active:
            self.bar.stop()
            self.file.close()
            for each in self.trackers:
                each.close()

    def say(self, text: str) -> None:
        """A line for the person watching."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def record(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line of metrics.jsonl and the same values to the trackers; values that are not finite are left out.

        The trackers are given the images a second too, which no two runs share.
        """
        if not self.active:
            return
        values = {k: float(v) for k, v in metrics.items() if math.isfinite(v)}
        self.file.write(json.dumps({"step": step, **values}) + "\n")
        speed = {"images_per_second": self.batch_size / self.seconds} if self.seconds else {}
        for tracker in self.trackers:
            for name, value in {**values, **speed}.items():
                tracker.add_scalar(name, value, step)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """A grid of images for the trackers."""
        if self.active:
            pixels = np.asarray(image.convert("RGB"))
            for tracker in self.trackers:
                tracker.add_image(name, pixels, step, dataformats="HWC")

    def progress(self, step: int, loss: float) -> None:
        """Moves the bar, or now and then prints a line where there is none."""
        now = time.monotonic()
        if self.began is None:
            self.began, self.first = now, step  # what came before was compilation
        else:
            self.seconds = (now - self.began) / (step - self.first)
        if not self.active:
            return
        note = f"loss {loss:.4f}"
        if self.seconds:
            note += f", {self.batch_size / self.seconds:.0f} images/s, {1e3 * self.seconds:.1f} ms a step"
        self.bar.update(self.task, completed=step, note=note)
        if not self.console.is_terminal and (now - self.spoke > EVERY_SECONDS or step == self.steps):
            self.spoke = now
            left = f", {self.seconds * (self.steps - step):.0f} s left" if self.seconds else ""
            self.say(f"step {step}/{self.steps}  {note}{left}")
