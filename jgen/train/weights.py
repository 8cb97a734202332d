"""The weights of a stage alone, in a safetensors file: what sampling uses, without optimizers; safe to publish and to read."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from jgen.errors import UserError, nearest
from jgen.files import replacing
from jgen.sharding import state_shardings
from jgen.train.stage import Stage, state_shapes
from jgen.train.step import TrainState
from jgen.types import Extra, Params, PyTree


def named(params: Params, extra: Extra) -> dict[str, Any]:
    """Every array of a stage by its path: params/net/..., extra/..."""
    leaves = jax.tree_util.tree_leaves_with_path({"params": dict(params), "extra": dict(extra)})
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def write(path: Path, arrays: Mapping[str, Any], about: Mapping[str, str]) -> None:
    """Writes arrays by name as safetensors, with texts about them in its head."""
    on_host = {name: np.asarray(jax.device_get(array), order="C") for name, array in arrays.items()}
    with replacing(path) as temporary:
        save_file(on_host, temporary, dict(about))


def about(path: Path) -> dict[str, str]:
    """The texts in the head of a safetensors file. Raises UserError for any other file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error})") from error


def read(path: Path, stage: Stage, mesh: Mesh) -> tuple[int, TrainState]:
    """(step, state without optimizers) of a stage, laid out over the mesh.

    The names, sizes and types of all arrays must be those of the stage, and are checked before an array is read. Raises
    UserError, naming the array, where they are not, and for numbers that are not finite.
    """
    shapes = state_shapes(stage)
    params, extra = shapes.averaged, shapes.extra
    step = about(path).get("step", "")
    if not (step.isdecimal() and step.isascii() and len(step) < 10):
        raise UserError(f"{path}: its step is {step!r:.40}; must be a whole number")
    found = _checked(path, named(params, extra))
    tree = {"params": dict(params), "extra": dict(extra)}
    layout = state_shardings(mesh, tree)
    names = list(named(params, extra))
    placed = jax.tree.map(lambda name, place: jax.device_put(found[name], place), _unflatten(tree, names), layout)
    return int(step), TrainState(jnp.asarray(int(step), jnp.int32), placed["params"], placed["extra"], {}, {})


def _unflatten(tree: PyTree, values: list[Any]) -> PyTree:
    return jax.tree.unflatten(jax.tree.structure(tree), values)


def _checked(path: Path, wanted: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a file, which must be those wanted."""
    found: dict[str, np.ndarray] = {}
    try:
        with safe_open(path, framework="numpy") as file:
            held = list(file.keys())
            if missing := sorted(set(wanted) - set(held)):
                raise UserError(f"{path}: {missing[0]} is not there, and {len(missing) - 1} more; is it of this experiment?")
            if more := sorted(set(held) - set(wanted)):
                raise UserError(f"{path}: {more[0]} is no array of this experiment{nearest(more[0], list(wanted))}")
            for name, shape in wanted.items():
                size = tuple(file.get_slice(name).get_shape())
                if size != shape.shape:
                    raise UserError(f"{path}: {name} is {size}, but {shape.shape} by its settings")
            for name, shape in wanted.items():
                array = file.get_tensor(name)
                if array.dtype != shape.dtype:
                    raise UserError(f"{path}: {name} is of {array.dtype}, but {shape.dtype} by its settings")
                if jnp.issubdtype(array.dtype, jnp.inexact) and not np.isfinite(array).all():
                    raise UserError(f"{path}: {name} is not finite")
                found[name] = array
    except (SafetensorError, OSError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise UserError(f"{path}: not a readable .safetensors file ({error})") from error
    return found
