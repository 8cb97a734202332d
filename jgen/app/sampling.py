"""The command sample: images of a run, or one of its other pictures."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jgen import pictures
from jgen.app.images_out import WRITTEN, check_images_out, write_images
from jgen.app.load import Run, load
from jgen.app.moving import effects, moving_pictures, write_moving
from jgen.app.nearest import NEAREST, SHOWN, nearest_images
from jgen.config import MeshConfig, to_dict
from jgen.config.sampling import Animation
from jgen.errors import UserError
from jgen.files import check_out
from jgen.progress import waiting
from jgen.sharding import make_mesh
from jgen.train.draw import draw
from jgen.train.grids import shows, stage_picture


def sample(folder: Path, options: Any, num: int, seed: int, batch: int, out: str, mesh: MeshConfig | None = None) -> None:
    """Draws images from a run and writes them as a grid, an array file, or a folder of PNGs."""
    if out:
        check_images_out(Path(out), num)
    run = load(folder, make_mesh(mesh))
    path = Path(out) if out else folder / f"samples{_differing(run, options)}-seed{seed}.png"
    began = time.monotonic()
    images = draw(run.stage, run.params, run.extra, run.mesh, num=num, seed=seed, options=options, batch=batch, bar=True)
    seconds = time.monotonic() - began
    write_images(images, path, f"{shows(run.stage, 'samples', options)}: {num} images, step {run.step:,}, seed {seed}")
    print(f"{num} images from step {run.step} in {seconds:.1f} s, compilation included: {path}")


def picture(
    folder: Path, name: str, options: Any, seed: int, out: str, mesh: MeshConfig | None, how: Animation, num: int,
    given: Sequence[str] = (),
) -> None:  # fmt: skip
    """Writes one of the run's other pictures: a grid, arrays or PNGs, or a moving one, of `num` images.

    Without a name it is the moving one that the model has: images as they are denoised, or a walk through its latents.
    given: options that were named, among num, batch, frames and fps. Raises UserError for those without effect on the picture.
    """
    run = load(folder, make_mesh(mesh), options)
    moving = moving_pictures(run, num)
    name = name or next(iter(moving), "")
    known = [*run.stage.pictures, *run.stage.on_request, *([NEAREST] if run.stage.sample is not None else [])]
    if name not in (*known, *moving):
        there = ", ".join([*known, *moving]) or "none"
        raise UserError(f"picture={name}: {run.stage.name} has no such picture; there are {there}")
    effective = effects(run, name) if name in moving else ("num",) if name == NEAREST else ()
    for option in given:
        if option not in effective:
            raise UserError(f"{option}: has no effect on --picture {name}; leave it out")
    tag = "" if out else _differing(load(folder, run.mesh), options)
    path = Path(out) if out else folder / f"{name}{tag}-seed{seed}.{'gif' if name in moving else 'png'}"
    if name in moving:
        with waiting(f"drawing {name}"):
            write_moving(moving[name], path, seed, num, how)
    elif name == NEAREST:
        check_out(path, WRITTEN)
        rows = nearest_images(run, options, num if "num" in given else SHOWN, seed)
        about = f"Samples, and the training images nearest to each: step {run.step:,}, seed {seed}"
        write_images(rows.reshape(-1, *rows.shape[2:]), path, about, columns=rows.shape[1])
    else:
        check_out(path, WRITTEN)
        with waiting(f"drawing {name}"):
            images = stage_picture(run.stage, name, run.params, run.extra, run.mesh, seed)
        pictures.check_finite(images, f"picture={name}")
        write_images(images, path, f"{shows(run.stage, name)}: step {run.step:,}, seed {seed}")
    print(f"{name} from step {run.step}: {path}")


def _differing(run: Run, options: Any) -> str:
    """A tag of options other than the run's own for a picture's name, so that it takes the place of no other's."""
    own = run.stage.options
    if options is None or own is None or to_dict(options) == to_dict(own):
        return ""
    tag = hashlib.sha256(json.dumps(to_dict(options), sort_keys=True, default=str).encode()).hexdigest()[:6]
    return f"-{options.solver.sampler}-{tag}" if hasattr(options, "solver") else f"-{tag}"
