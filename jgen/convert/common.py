"""Filling a Linen module's variables from official weights, by name."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from jgen.errors import UserError

Path = tuple[str, ...]


def linen_path(name: str) -> Path:
    """The Linen path of a PyTorch name: numbers join the word before them, weight and bias become Linen's names.

    >>> linen_path("input_blocks.3.0.in_layers.2.weight")
    ('input_blocks_3_0', 'in_layers_2', 'weight')
    """
    return tuple(re.sub(r"\.(\d+)(?=\.|$)", r"_\1", name).split("."))


def to_linen(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A PyTorch weight in Linen's layout: OIHW -> HWIO, (O, I, 1...) -> (I, O) where a Dense stands for a 1x1 conv."""
    if array.shape == shape and array.ndim == 1:
        return array
    if array.ndim == 4 and len(shape) == 4:
        return array.transpose(2, 3, 1, 0)
    if len(shape) == 2 and array.ndim > 2 and set(array.shape[2:]) == {1}:
        array = array.reshape(array.shape[:2])
    return array.T if array.ndim == 2 else array


def fill(
    shapes: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    path_of: Callable[[str], Path],
    layout: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray],
) -> dict[str, Any]:
    """The params tree of `shapes` (from jax.eval_shape) filled from `weights`.

    path_of maps an official name to a path in the tree, whose last part "weight" stands for whichever of kernel,
    scale or embedding is there. layout(name, array, shape) arranges an array. Raises UserError that lists the names
    missing or left over, or the first shape that does not fit.
    """
    flat: dict[Path, Any] = dict(traverse_util.flatten_dict(dict(shapes)))  # pyright: ignore[reportAssignmentType]
    filled, left_over = {}, []
    for name, array in weights.items():
        path = path_of(name)
        if path[-1] == "weight":
            kinds = [k for k in ("kernel", "scale", "embedding") if (*path[:-1], k) in flat]
            path = (*path[:-1], kinds[0]) if kinds else path
        if path not in flat:
            left_over.append(name)
            continue
        value = layout(name, np.asarray(array), flat[path].shape)
        if value.shape != flat[path].shape:
            raise UserError(f"weight {name}: shape {array.shape} does not fit {flat[path].shape} at {'/'.join(path)}")
        filled[path] = value.astype(flat[path].dtype)
    missing = ["/".join(path) for path in flat if path not in filled]
    if missing or left_over:
        raise UserError(f"weights do not match the network: missing {_names(missing)}; left over {_names(left_over)}")
    return traverse_util.unflatten_dict(filled)


def fill_collections(
    made: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    path_of: Callable[[str], Path],
    layout: Callable[[str, np.ndarray, tuple[int, ...]], np.ndarray],
) -> dict[str, Any]:
    """`fill` for variables of several collections ({"params": ..., "batch_stats": ...}) whose leaves have paths of their own.

    made: shapes of all variables. path_of gives paths without the collection's name.
    """
    flat: dict[Path, Any] = dict(traverse_util.flatten_dict(dict(made)))  # pyright: ignore[reportAssignmentType]
    collection = {path[1:]: path[0] for path in flat}
    joined = traverse_util.unflatten_dict({path[1:]: shape for path, shape in flat.items()})
    filled: dict[Path, Any] = dict(traverse_util.flatten_dict(fill(joined, weights, path_of, layout)))  # pyright: ignore
    return traverse_util.unflatten_dict({(collection[path], *path): value for path, value in filled.items()})


def _names(names: list[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def part(weights: Mapping[str, np.ndarray], name: str) -> dict[str, np.ndarray]:
    """The weights of one network of a file that holds several, such as G_ema."""
    return {k.removeprefix(f"{name}."): v for k, v in weights.items() if k.startswith(f"{name}.")}


def join_qkv(weights: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """diffusers' weights with to_q, to_k and to_v joined under the name "qkv"."""
    joined = {}
    for name, array in weights.items():
        if ".to_q." in name:
            parts = [weights[name.replace("to_q", part)] for part in ("to_q", "to_k", "to_v")]
            joined[name.replace("to_q", "qkv")] = np.concatenate(parts)
        elif ".to_k." not in name and ".to_v." not in name:
            joined[name] = array
    return joined


def param_shapes(init: Callable[..., Any], *inputs: Any, **kwargs: Any) -> Any:
    """The params of a Linen module as shapes, without computing them."""
    return jax.eval_shape(lambda: init(jax.random.key(0), *inputs, **kwargs))["params"]
