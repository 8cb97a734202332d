"""Weight files -> {official name: ndarray}, never running code from the file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from jgen.convert.hdf5 import load_hdf5
from jgen.convert.nvidia import load_pickle
from jgen.convert.torch_files import load_torch
from jgen.errors import UserError
from jgen.untrusted import read_npz, readable


def load_weights(path: str | Path, weights: str = "") -> dict[str, np.ndarray]:
    """Weights of an .npz, .safetensors, HDF5 (.h5), torch (.pt, .pth, .th, .bin, .ckpt) or (NVIDIA's) .pkl file, by name.

    An .npz whose names begin with "w/" gives those, without the prefix. A torch file may hold the state dict itself, or
    several under names, such as the raw weights and their average ("model" and "ema"; "G_ema" of a .pkl): `weights` chooses
    one, and is needed where a torch file has more than one. The "module." that torch puts before every name of a network on
    several cards is left out. Memory and time are in proportion to the file: an array is at
    most as large as its storage, and all that is made may take 64 MiB and 32 times the file's size.

    Raises UserError for a file that is missing, damaged, of another kind, or that asks for anything but tensors; for one
    with several sets of weights where none is chosen; and for a choice that there is not.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    torch = {suffix: load_torch for suffix in (".pt", ".pth", ".th", ".bin", ".ckpt")}
    readers: dict[str, Callable[[Path, str], dict[str, np.ndarray]]] = {
        ".npz": _npz, ".safetensors": _safetensors, **torch, ".pkl": load_pickle, ".h5": load_hdf5, ".hdf5": load_hdf5,
    }  # fmt: skip
    if path.suffix not in readers:
        raise UserError(f"{path}: weights must be one of {', '.join(readers)}")
    with readable(path):
        return _of_one_card(readers[path.suffix](path, weights))


def _of_one_card(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    if found and all(name.startswith("module.") for name in found):
        return {name.removeprefix("module."): array for name, array in found.items()}
    return found


def _npz(path: Path, weights: str) -> dict[str, np.ndarray]:
    _no_choice(path, weights)
    prefixed = read_npz(path, lambda name: name.startswith("w/"))
    return {name.removeprefix("w/"): array for name, array in prefixed.items()} or read_npz(path)


def _safetensors(path: Path, weights: str) -> dict[str, np.ndarray]:
    _no_choice(path, weights)
    return load_file(path)


def _no_choice(path: Path, weights: str) -> None:
    if weights:
        raise UserError(f"weights={weights}: {path} holds one set of weights, without a name")
