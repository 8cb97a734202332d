"""The playground of a run with styles: samples, mixing, directions, walks, and moved inputs, by programs that are made once."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.load import Run
from jgen.edit.styles import swapped
from jgen.recipes.gan.animations import walks
from jgen.recipes.gan.images import cropped
from jgen.samplers import image_keys
from jgen.types import Array

T = TypeVar("T")
WALK = 24
"""Frames of a walk."""
COMPONENTS = 8
"""Directions of a style-based GAN: the principal components of its styles."""

_KEPT: dict[int, tuple[Run, dict[str, Any]]] = {}
"""By the run's id, and with the run, so that no other one gets its id."""


def kept(run: Run, name: str, make: Callable[[Run], T]) -> T:
    """A function of a run: its result is made once and kept."""
    _, found = _KEPT.setdefault(id(run), (run, {}))
    if name not in found:
        found[name] = make(run)
    return found[name]


def styled(run: Run, values: Mapping[str, Any]) -> np.ndarray:
    """Images [N, H, W, C] of a style-based GAN, without noise."""
    space, params, extra = run.stage.space, run.params, run.extra
    assert space is not None
    make, num, seed, label = kept(run, "programs", _programs), values["num"], values["seed"], values.get("label", -1)
    if values["show"] == "walk":
        times = np.arange(WALK, dtype=np.float32) / WALK
        return np.stack([np.clip(make["walk"](params, extra, seed, num, time, values["psi"], label), -1, 1) for time in times])
    mean = space.mean(extra, label)[None, None]
    truncated = lambda keys: mean + values["psi"] * (make["styles"](params, extra, keys, label) - mean)  # noqa: E731
    ws = truncated(image_keys(seed, num))
    if values["show"] == "mixing":
        ws = swapped(ws, truncated(image_keys(seed + 1, num)), (values["rows_from"], values["rows_to"] + 1))
    if values["show"] == "directions":
        ws = ws + values["amount"] * jnp.asarray(make["components"](params, extra)[values["direction"]])[None, None]
    if values["show"] == "transform":
        matrix = transform(values["move_x"], values["move_y"], values["turn"])
        return np.clip(np.asarray(make["moved"](params, extra, seed, num, values["psi"], label, matrix)), -1, 1)
    return np.clip(np.asarray(make["images"](params, extra, ws)), -1, 1)


def transform(right: float, down: float, degrees: float) -> np.ndarray:
    """float32 [3, 3]: the inverse of turning an image anticlockwise and then moving it, in widths of the image."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
    move = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
    return np.linalg.inv(move @ turn).astype(np.float32)


def _programs(run: Run) -> dict[str, Any]:
    """The programs of a run with styles."""
    space = run.stage.space
    assert space is not None
    styles = jax.jit(space.styles, static_argnums=3)
    kept: list[np.ndarray] = []

    def components(params: Any, extra: Any) -> np.ndarray:
        """[COMPONENTS, D]: the directions in which styles vary most, each as long as their deviation there."""
        if not kept:
            rows = np.asarray(styles(params, extra, image_keys(0, 512), -1))[:, 0]
            _, sizes, axes = np.linalg.svd(rows - rows.mean(0), full_matrices=False)
            scaled = axes * sizes[:, None] / math.sqrt(len(rows))
            kept.append(np.concatenate([scaled, np.zeros((COMPONENTS, rows.shape[1]))])[:COMPONENTS].astype(np.float32))
        return kept[0]

    def walk(params: Any, extra: Any, seed: int, num: int, time: Array, psi: Array, label: int) -> Array:
        ws = walks(space, params, extra, seed, num, time[None], psi, label)
        return space.synthesize(params, extra, ws[:, 0])

    programs: dict[str, Any] = {"styles": styles, "images": jax.jit(space.synthesize), "components": components}
    programs["walk"] = jax.jit(walk, static_argnums=(3, 6))
    if (moved := run.stage.moved) is not None:
        plain = dataclasses.replace(run.stage.options, noise="none")

        def of_seed(params: Any, extra: Any, seed: int, num: int, psi: Array, label: int, matrix: Array) -> Array:
            """The images of the styles that the other modes show, in the set's size."""
            options = dataclasses.replace(plain, psi=psi, label=label)
            return cropped(moved(params, extra, image_keys(seed, num), options, matrix), run.stage.data.shape[0])

        programs["moved"] = jax.jit(of_seed, static_argnums=(3, 5))
    return programs
