"""NVIDIA's network pickles (StyleGAN2-ADA, StyleGAN3, EDM) -> {official name: ndarray}, never running code from the file.

Such a pickle holds the source of its classes and asks to run it. Here every class is an inert stand-in that keeps its state,
every tensor an array, and whatever else the file asks for is refused by name.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jgen.convert.pickles import OPERATION, Function, Resolve, refused, unpickle
from jgen.convert.torch_files import read_torch, tensor_names
from jgen.errors import UserError
from jgen.untrusted import NUMERIC, Budget, budget_of, checked_array, readable

MODULE = 1024
"""Bytes that one path to a module is counted as: a file can hold few modules and name many paths to them."""
NESTED = 64
"""The most that modules may be within each other."""


class Module:
    """A stand-in for any network class of the file."""

    def __init__(self, *_: Any, **__: Any):
        self.state: Mapping[str, Any] = {}

    def build(self, state: Any) -> None:
        """Takes the attributes that the file gives the object."""
        self.state = state if isinstance(state, Mapping) else {}

    def part(self, name: str) -> Mapping[str, Any]:
        """A dict among its attributes, or an empty one."""
        found = self.state.get(name)
        return found if isinstance(found, Mapping) else {}

    def tensors(self, budget: Budget, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, np.ndarray]]:
        """Parameters and buffers by the names of a state dict. Raises UserError where there are too many paths to them."""
        if depth > NESTED:
            raise UserError(f"{budget.path}: has modules within each other more than {NESTED} times")
        budget.take(MODULE + len(prefix))
        for kind in ("_parameters", "_buffers"):
            for name, value in self.part(kind).items():
                value = value.array(budget) if isinstance(value, Array) else value
                if isinstance(value, np.ndarray):
                    budget.take(OPERATION + len(prefix))
                    yield f"{prefix}{name}", value
        for name, part in self.part("_modules").items():
            if isinstance(part, Module):
                yield from part.tensors(budget, f"{prefix}{name}.", depth + 1)


class DType:
    """A stand-in for numpy's dtype: plain numbers only."""

    def __init__(self, name: Any, *_: Any):
        self.dtype = np.dtype(name) if isinstance(name, str) and len(name) <= 3 else np.dtype(object)
        if self.dtype.kind not in NUMERIC:
            raise ValueError("an array of what are no plain numbers")

    def build(self, state: Any) -> None:
        """Takes the byte order; the rest of the state is that of other kinds of dtype."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "=", "|"):
            self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """A stand-in for numpy's ndarray, whose bytes are checked against its shape."""

    def __init__(self, *_: Any):
        self.state: tuple[Any, ...] = ()

    def build(self, state: Any) -> None:
        """Takes version, shape, dtype, order and bytes."""
        self.state = state if isinstance(state, tuple) else ()

    def array(self, budget: Budget) -> np.ndarray:
        """The array. Raises UserError or ValueError where its parts do not fit."""
        _, shape, kind, fortran, data = self.state
        data = data.encode("latin1") if isinstance(data, str) else data
        if not (isinstance(kind, DType) and isinstance(data, bytes) and isinstance(shape, tuple)):
            raise ValueError("an array without dtype, shape or bytes")
        return checked_array(data, kind.dtype, shape, f"{budget.path}: an array", order="F" if fortran else "C")


class Network(NamedTuple):
    """A network of a pickle."""

    options: dict[str, Any]
    """The arguments that its constructor was given by name, as `jgen.convert` takes them."""
    weights: dict[str, np.ndarray]
    parts: dict[str, dict[str, Any]]
    """Those of its modules, {"mapping": ..., "synthesis": ...}."""


def _persistent(meta: Any) -> Module:
    """The module that the file would rebuild from the source it carries."""
    module = Module()
    module.build(meta["state"])
    return module


def _options(module: Module, name: str) -> dict[str, Any]:
    return _plain(module.part("_init_kwargs"), name)


def _plain(value: Any, name: str, depth: int = 0) -> Any:
    """An argument made of numbers, texts, lists and dicts. Raises UserError for any other, and for what is nested too deep."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple) and depth < NESTED:
        return [_plain(each, name, depth + 1) for each in value]
    if isinstance(value, Mapping) and depth < NESTED:
        return {str(key): _plain(each, f"{name}.{str(key)[:40]}", depth + 1) for key, each in value.items()}
    raise UserError(f"{name}: an argument of its network is {type(value).__name__}, which is no plain value")


def _names(budget: Budget) -> dict[tuple[str, str], Any]:
    def text(value: Any, encoding: Any) -> bytes:
        budget.take(len(value))
        if encoding not in ("latin1", "latin-1"):
            raise ValueError("bytes in another encoding than latin1")
        return value.encode("latin1")

    def storage(data: Any) -> Any:
        return read_torch(io.BytesIO(data), budget)

    numpy_core = [f"numpy.{core}.multiarray" for core in ("core", "_core")]
    return {
        **tensor_names(budget),
        ("torch_utils.persistence", "_reconstruct_persistent_obj"): Function(_persistent),
        ("dnnlib.util", "EasyDict"): Function(lambda: {}),
        ("torch.storage", "_load_from_bytes"): Function(storage),
        ("_codecs", "encode"): Function(text),
        **{(core, "_reconstruct"): Function(lambda *_: Array()) for core in numpy_core},
        **{(core, "scalar"): Function(lambda *_: None) for core in numpy_core},
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): Function(DType),
    }


LAYERS = ("torch.nn.modules.", "pg_modules.", "feature_networks.", "timm.")
"""Packages of layers: torch's, and those of the discriminators that StyleGAN-XL's and Projected GAN's files hold beside G."""


def _resolver(budget: Budget) -> Resolve:
    known = _names(budget)

    def resolve(module: str, name: str) -> Any:
        if (module, name) in known:
            return known[module, name]
        if module.startswith(LAYERS):
            return Function(Module)  # nothing is imported: every layer of these packages is the same stand-in
        raise refused(budget.path, module, name, "neither tensor nor network")

    return resolve


def load_networks(path: Path) -> dict[str, Network]:
    """The networks of a pickle by name ("G_ema", "D"; "" for a file of one): the arguments of their constructors, and weights.

    Raises UserError as `load_pickle` does, for a network whose arguments are not all named, and for one that is no plain value.
    """
    found, budget = {}, budget_of(path)
    with readable(path):
        for name, part in _parts(path, budget).items():
            if tensors := dict(part.tensors(budget)):
                if part.state.get("_init_args"):
                    raise UserError(f"{path}: {name or 'its network'} was made by arguments without names")
                modules = {key: each for key, each in part.part("_modules").items() if isinstance(each, Module)}
                parts = {str(key): _options(each, f"{path}: {name}.{key}") for key, each in modules.items()}
                found[name] = Network(_options(part, f"{path}: {name}"), tensors, parts)
    if not found:
        raise UserError(f"{path}: holds no network")
    return found


def _parts(path: Path, budget: Budget, wanted: str = "") -> dict[str, Module]:
    """The networks of a pickle, or the one that is wanted."""
    content = unpickle(io.BytesIO(path.read_bytes()), _resolver(budget), budget)
    parts = {"": content} if isinstance(content, Module) else {k: v for k, v in content.items() if isinstance(v, Module)}
    if wanted and wanted not in parts:
        raise UserError(f"weights={wanted}: {path} has none of this name; there are {', '.join(parts) or 'none'}")
    return {wanted: parts[wanted]} if wanted else parts


def load_pickle(path: Path, weights: str = "") -> dict[str, np.ndarray]:
    """Weights of all networks of a pickle, or of the one that is named; of several, their names ("G_ema.") come first.

    Raises UserError for a file that asks for anything but tensors and networks.
    """
    budget = budget_of(path)
    parts = _parts(path, budget, weights)
    networks = {name: dict(part.tensors(budget)) for name, part in parts.items()}
    networks = {name: tensors for name, tensors in networks.items() if tensors}  # a loss is an object without any
    if not networks:
        raise UserError(f"{path}: holds no network")
    if len(networks) == 1:
        return next(iter(networks.values()))
    return {f"{name}.{k}": v for name, tensors in networks.items() for k, v in tensors.items()}
