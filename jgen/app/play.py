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
from jgen.config import changed, leaves
from jgen.config.ranges import Leaf
from jgen.edit.styles import swapped
from jgen.errors import UserError, nearest
from jgen.recipes.gan.images import cropped
from jgen.samplers import image_keys
from jgen.train.draw import draw
from jgen.train.frames import denoising, latent_walk
from jgen.train.stage import Stage
from jgen.types import Array

Kind = Literal["diffusion", "styles", "pixels", "latents"]
MODES: Mapping[Kind, tuple[str, ...]] = {
    "diffusion": ("samples", "denoising", "edit"),
    "styles": ("samples", "mixing", "directions"),
    "pixels": ("samples", "completion"),
    "latents": ("samples", "interpolation", "walk"),
}
OF_IMAGES = ("edit", "completion")
"""Modes that begin from an image of the reader's."""
OPTIONS = ("guidance", "edit_from", "temperature", "deviation", "psi", "top_k", "eta")
"""Options of sampling that become sliders, where a run has them."""
REACH = {"guidance": 8.0, "edit_from": 10.0, "psi": 1.5, "top_k": 256.0}
COMPONENTS = 8
"""Directions of a style-based GAN: the principal components of its styles."""
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
    own = {leaf.name: leaf.value for leaf in _leaves(stage.options)}
    if kind == "diffusion":
        solver = stage.options.solver
        found.append(Control("sampler", "Sampler", solver.sampler, choices=sampler_names(stage.options)))
        found.append(Control("steps", "Steps", min(own.get("steps", 20), 200), 1, 200))
    for name in OPTIONS:
        if isinstance(own.get(name), (int, float)):
            value, step = own[name], 1 if isinstance(own[name], int) else 0.05
            low, high = min(0, value), max(REACH.get(name, 2.0), value)
            found.append(Control(name, name.replace("_", " ").capitalize(), value, low, high, step))
    if "label" in own and run.stage.data.num_classes and kind != "styles":  # whose styles are of a class drawn for each
        found.append(Control("label", "Class (-1: any)", own["label"], -1, run.stage.data.num_classes - 1))
    return found + _more(stage, kind)


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
        return fitted(Path(path), run.stage.data.shape)
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
        images = _styles(run, values) if kind_of(run.stage) == "styles" else _drawn(run, values, image)
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
        return latent_walk(*weights, frames=24, stops=2, **how)
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


def _styles(run: Run, values: Mapping[str, Any]) -> np.ndarray:
    """Images [N, H, W, C] of a style-based GAN, without noise."""
    space, params, extra = run.stage.space, run.params, run.extra
    assert space is not None
    make, num, seed = _compiled(run), values["num"], values["seed"]
    mean = space.mean(extra)[None, None]
    truncated = lambda keys: mean + values["psi"] * (make["styles"](params, extra, keys) - mean)  # noqa: E731
    ws = truncated(image_keys(seed, num))
    if values["show"] == "mixing":
        ws = swapped(ws, truncated(image_keys(seed + 1, num)), (values["rows_from"], values["rows_to"] + 1))
    if values["show"] == "directions":
        ws = ws + values["amount"] * jnp.asarray(make["components"](params, extra)[values["direction"]])[None, None]
    if values["show"] == "transform":
        matrix = transform(values["move_x"], values["move_y"], values["turn"])
        return np.clip(np.asarray(make["moved"](params, extra, seed, num, values["psi"], matrix)), -1, 1)
    return np.clip(np.asarray(make["images"](params, extra, ws)), -1, 1)


def transform(right: float, down: float, degrees: float) -> np.ndarray:
    """float32 [3, 3]: the inverse of turning an image anticlockwise and then moving it, in widths of the image."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    move = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
    return np.linalg.inv(move @ turn).astype(np.float32)


_PROGRAMS: dict[int, tuple[Run, dict[str, Any]]] = {}
"""By the run's id, and with the run, so that no other one gets its id."""


def _compiled(run: Run) -> dict[str, Any]:
    """The programs of a run with styles, made once."""
    if id(run) not in _PROGRAMS:
        space = run.stage.space
        assert space is not None
        styles = jax.jit(space.styles)
        kept: list[np.ndarray] = []

        def components(params: Any, extra: Any) -> np.ndarray:
            """[COMPONENTS, D]: the directions in which styles vary most, each as long as their deviation there."""
            if not kept:
                rows = np.asarray(styles(params, extra, image_keys(0, 512)))[:, 0]
                _, sizes, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
                scaled = axes * sizes[:, None] / math.sqrt(len(rows))
                kept.append(np.concatenate([scaled, np.zeros((COMPONENTS, rows.shape[1]))])[:COMPONENTS].astype(np.float32))
            return kept[0]

        programs: dict[str, Any] = {"styles": styles, "images": jax.jit(space.synthesize), "components": components}
        if (moved := run.stage.moved) is not None:
            plain = dataclasses.replace(run.stage.options, label=-1, noise="none")

            def of_seed(params: Any, extra: Any, seed: int, num: int, psi: Array, matrix: Array) -> Array:
                """The images of the styles that the other modes show, in the set's size."""
                options = dataclasses.replace(plain, psi=psi)
                return cropped(moved(params, extra, image_keys(seed, num), options, matrix), run.stage.data.shape[0])

            programs["moved"] = jax.jit(of_seed, static_argnums=3)
        _PROGRAMS[id(run)] = run, programs
    return _PROGRAMS[id(run)][1]
