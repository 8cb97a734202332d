"""The playground as functions of a run: controls, their values read from an address, and a picture of them."""

import dataclasses
import math
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen import pictures
from jgen.app.load import Run
from jgen.app.parsing import sampler_names
from jgen.app.photos import fitted
from jgen.app.play_styles import COMPONENTS, WALK, kept, styled
from jgen.config import changed, leaves
from jgen.config.ranges import Leaf
from jgen.errors import UserError, nearest
from jgen.train.draw import check_sampling, draw
from jgen.train.frames import denoising, latent_walk
from jgen.train.stage import Stage
from jgen.types import Array

Kind = Literal["diffusion", "styles", "pixels", "latents"]
MODES: Mapping[Kind, tuple[str, ...]] = {
    "diffusion": ("samples", "denoising", "edit"),
    "styles": ("samples", "mixing", "directions", "walk"),
    "pixels": ("samples", "completion"),
    "latents": ("samples", "interpolation", "walk"),
}
OF_IMAGES = ("edit", "completion")
"""Modes that begin from an image of the reader's."""
OPTIONS = ("guidance", "edit_from", "temperature", "deviation", "psi", "top_k", "eta")
"""Options of sampling that become sliders, where a run has them."""
REACH = {"guidance": 8.0, "edit_from": 10.0, "psi": 1.5, "top_k": 256.0}
_LOCK = threading.Lock()


class Control(NamedTuple):
    """A control of the playground, and the range of its values."""

    name: str
    label: str
    value: Any
    low: float = 0
    high: float = 0
    step: float = 1
    choices: tuple[str, ...] = ()


class Shown(NamedTuple):
    """A picture: uint8 frames [T, H, W, C] (one of a still one), and what it shows."""

    frames: np.ndarray
    caption: str


def kind_of(stage: Stage) -> Kind:
    """The family of a stage, by what it can do. Raises UserError for one that draws nothing."""
    if stage.sample is None:
        raise UserError(f"{stage.name}: draws no samples, so there is nothing to play with")
    if hasattr(stage.options, "solver"):
        return "diffusion"
    if stage.space is not None:
        return "styles"
    return "pixels" if "completed" in stage.on_request else "latents"


def controls(run: Run) -> list[Control]:
    """The controls of a run, the first of which chooses what is shown."""
    stage, kind = run.stage, kind_of(run.stage)
    modes = MODES[kind] + (("transform",) if kind == "styles" and stage.moved is not None else ())
    if kind == "diffusion" and "edited" not in stage.on_request:
        modes = modes[:-1]
    found = [
        Control("show", "Show", modes[0], choices=modes),
        Control("seed", "Seed", 0, 0, 9999),
        Control("num", "Images", 16, 1, 36),
    ]
    own, refused = _own(stage.options), kept(run, "refused", _refused)
    if kind == "diffusion":
        solver = stage.options.solver
        found.append(Control("sampler", "Sampler", solver.sampler, choices=sampler_names(stage.options)))
        found.append(Control("steps", "Steps", min(own.get("steps", 20), 200), 1, 200))
    for name in OPTIONS:
        if isinstance(own.get(name), (int, float)) and name not in refused:
            value, step = own[name], 1 if isinstance(own[name], int) else 0.05
            low, high = min(0, value), max(REACH.get(name, 2.0), value)
            found.append(Control(name, name.replace("_", " ").capitalize(), value, low, high, step))
    if "label" in own and "label" not in refused:
        found.append(Control("label", "Class (-1: any)", own["label"], -1, run.stage.data.num_classes - 1))
    return found + _more(stage, kind)


def _own(options: Any) -> dict[str, Any]:
    """The options of sampling by name, those of all samplers that can be chosen among them."""
    found = {leaf.name: leaf.value for leaf in _leaves(options)}
    for name in sampler_names(options):
        found = {leaf.name: leaf.value for leaf in _leaves(changed(options, {"sampler": name}))} | found
    return found


def _refused(run: Run) -> set[str]:
    """Options that the model refuses: the class of a model without classes, guidance of one that was not trained for it."""
    stage, found = run.stage, set()
    own = {leaf.name for leaf in _leaves(stage.options)}
    changes = {"label": {"label": 0}, "guidance": {"label": 0, "guidance": 2.0}}
    for name in sorted(own & set(changes)):
        try:
            check_sampling(stage, changed(stage.options, {k: v for k, v in changes[name].items() if k in own}))
        except UserError:
            found.add(name)
    return found


def _more(stage: Stage, kind: Kind) -> list[Control]:
    if kind == "latents":
        return [Control("place", "Interpolation: place between two images", 0.5, 0, 1, 0.02)]
    if kind != "styles" or stage.space is None:
        return []
    rows = stage.space.num_ws
    found = [
        Control("rows_from", "Mixing: first row", rows // 2, 0, rows - 1),
        Control("rows_to", "Mixing: last row", rows - 1, 0, rows - 1),
        Control("direction", "Directions: component", 0, 0, COMPONENTS - 1),
        Control("amount", "Directions: amount", 2.0, -5, 5, 0.1),
    ]
    if stage.moved is not None:
        moves = [("move_x", "Move right", 0.5), ("move_y", "Move down", 0.5), ("turn", "Turn, degrees", 180)]
        found += [Control(name, f"Transform: {label}", 0.0, -high, high, high / 50) for name, label, high in moves]
    return found


def _leaves(options: Any) -> list[Leaf]:
    return list(leaves(options)) if options is not None else []


def checked(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """A value for every control, of those given, which may be texts from an address; names that no control has are passed over.

    Raises UserError for a value that is out of a control's range.
    """
    found = {}
    for each in controls(run):
        value = given.get(each.name, each.value)
        if each.choices:
            if value not in each.choices:
                close = nearest(str(value)[:40], list(each.choices))
                raise UserError(f"{each.name}={str(value)[:40]}: must be one of {', '.join(each.choices)}{close}")
            found[each.name] = value
            continue
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not each.low <= number <= each.high:
            raise UserError(f"{each.name}={str(value)[:40]}: must be from {each.low:g} to {each.high:g}")
        found[each.name] = number if isinstance(each.value, float) else round(number)
    return found


def image_of(run: Run, path: str | Path) -> np.ndarray:
    """A reader's image [H, W, C] in [-1, 1], brought to the run's size. Raises UserError for a file that is no image."""
    try:
        return fitted(Path(path), run.stage.data)
    except UserError as error:
        raise UserError(f"{Path(path).name}: can't be read; must be a PNG, JPEG or WebP picture") from error


def show(run: Run, given: Mapping[str, Any], image: np.ndarray | None = None) -> Shown:
    """The picture of the controls' values; image [H, W, C] in [-1, 1]: that which the modes `OF_IMAGES` begin from.

    Raises UserError for values that can't be, or for a missing image.
    """
    values = checked(run, given)
    mode = values["show"]
    if mode in OF_IMAGES and image is None:
        raise UserError(f"{mode}: needs an image; choose a file, or draw one")
    with _LOCK:  # a walk and a watched sampler are traced with state of the module
        images = styled(run, values) if kind_of(run.stage) == "styles" else _drawn(run, values, image)
    stills = images if images.ndim == 5 else images[None]
    sheets = np.stack([np.asarray(pictures.grid(each).convert("RGB")) for each in stills])
    said = ", ".join(f"{name}={value}" for name, value in values.items() if name != "show")
    return Shown(sheets, f"{mode}, step {run.step:,}: {said}")


def _drawn(run: Run, values: Mapping[str, Any], image: np.ndarray | None) -> np.ndarray:
    """Images [N, H, W, C], or frames [T, N, H, W, C], of every family but styles."""
    names = [name for name in ("sampler", "steps", "label", *OPTIONS) if name in values]
    chosen = changed(run.stage.options, {"sampler": values["sampler"]}) if "sampler" in values else run.stage.options
    known = {leaf.name for leaf in _leaves(chosen)}
    options = changed(chosen, {name: values[name] for name in names if name in known}) if chosen is not None else None
    stage, how = run.stage, dict(num=values["num"], seed=values["seed"], options=options)
    weights = (stage, run.params, run.extra, run.mesh)
    if values["show"] == "denoising":
        return denoising(*weights, **how)
    if values["show"] == "walk":
        return latent_walk(*weights, frames=WALK, stops=2, **how)
    if values["show"] == "interpolation":
        return latent_walk(*weights, frames=2, stops=2, start=values["place"], **how)[0]
    if values["show"] in OF_IMAGES:
        assert image is not None
        return _of_image(run, options, {"edit": "edited", "completion": "completed"}[values["show"]], image, values["seed"])
    return draw(*weights, batch=values["num"], **how)


def _of_image(run: Run, options: Any, name: str, image: np.ndarray, seed: int) -> np.ndarray:
    """One of the run's pictures of held-out images, made of the reader's."""
    build = sys.modules[type(run.config).__module__].build
    stages = build(dataclasses.replace(run.config, sampling=options)).stages
    stage = next(each for each in stages if each.name == run.stage.name)
    batch: dict[str, Array] = {"image": jnp.asarray(image)[None]}
    if stage.data.num_classes:
        batch["label"] = jnp.full((1,), max(getattr(options, "label", 0), 0), jnp.int32)
    extra = stage.extra_for(run.extra, options, run.mesh)
    return np.asarray(jax.jit(stage.on_request[name])(run.params, extra, jax.random.key(seed), batch))
