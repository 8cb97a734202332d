"""Moving pictures of a run: images as they are denoised, walks through latents, inputs that are shifted and turned."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

from jgen import pictures
from jgen.animation import KINDS, save_animation
from jgen.app.load import Run
from jgen.config.sampling import Animation
from jgen.errors import UserError
from jgen.files import check_out
from jgen.recipes.gan.animations import Frame, animations
from jgen.sharding import replicated
from jgen.train.frames import denoising, latent_walk

Maker = Callable[[int, int], np.ndarray]
"""(seed, number of frames) -> images [T, N, H, W, C] in [-1, 1]."""
MOST, HOLD = 64, 15
"""Images of a moving picture at most; frames that the last of a denoising stays."""
LEAST_SIDE = 256
"""Frames below it are enlarged, pixel by pixel."""


def moving_pictures(run: Run, num: int) -> dict[str, Maker]:
    """Those that a run can make, of `num` images where it is not a picture of a style-based generator's, which shows eight."""
    stage = run.stage
    if stage.sample is None:
        return {}
    how = dict(num=num, options=stage.options)

    def walk(seed: int, frames: int) -> np.ndarray:
        return latent_walk(stage, run.params, run.extra, run.mesh, seed=seed, frames=frames, **how)

    def denoised(seed: int, frames: int) -> np.ndarray:
        images = denoising(stage, run.params, run.extra, run.mesh, seed=seed, **how)
        return np.concatenate([images, np.repeat(images[-1:], HOLD, 0)])

    found: dict[str, Maker] = {"denoising": denoised} if hasattr(stage.options, "solver") else {}
    of_styles = animations(stage, stage.options)
    return {**found, "walk": walk, **{name: partial(_round, run, frame) for name, frame in of_styles.items()}}


def effects(run: Run, name: str) -> tuple[str, ...]:
    """Which of the options num, batch, frames and fps have an effect on a moving picture of a run."""
    if name == "denoising":
        return ("num", "fps")
    return ("frames", "fps") if name in animations(run.stage, run.stage.options) else ("num", "frames", "fps")


def _round(run: Run, frame: Frame, seed: int, frames: int) -> np.ndarray:
    make = jax.jit(frame, static_argnums=2, out_shardings=replicated(run.mesh))
    extra = run.stage.extra_for(run.extra, run.stage.options, run.mesh)
    return np.stack([np.asarray(make(run.params, extra, seed, np.float32(i / frames))) for i in range(frames)])


def write_moving(make: Maker, path: Path, seed: int, num: int, how: Animation) -> int:
    """Writes a moving picture, a sheet of its images for each frame; returns the number of frames.

    Raises UserError for a file of another kind, and for more images than a sheet shows.
    """
    if path.suffix not in KINDS:
        raise UserError(f"out={path}: this picture moves, so it must end in one of {', '.join(KINDS)}")
    check_out(path, tuple(KINDS))
    if not 1 <= num <= MOST:
        raise UserError(f"num={num}: a moving picture shows from 1 to {MOST} images")
    frames = make(seed, how.frames)
    for i, images in enumerate(frames):
        pictures.check_finite(images, f"out={path}: frame {i}")
    sheets = [pictures.grid(images, least=LEAST_SIDE).convert("RGB") for images in frames]
    save_animation(path, np.stack([np.asarray(sheet) for sheet in sheets]), how.fps)
    return len(sheets)
