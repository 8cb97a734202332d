"""Weight files -> {official name: ndarray}, never running code from the file."""

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from jgen.convert.nvidia import load_pickle
from jgen.convert.torch_files import load_torch
from jgen.errors import UserError


def load_weights(path: str | Path) -> dict[str, np.ndarray]:
    """Weights of an .npz, .safetensors, .pt, .pth, .ckpt or (NVIDIA's) .pkl file, under the names they have there.

    An .npz whose names begin with "w/" gives those, without the prefix. A torch file may hold the state dict itself or
    a dict with it under "state_dict", "model" or "ema". Raises UserError for a file that is missing, damaged, of
    another kind, or that asks for anything but tensors.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    torch = {suffix: load_torch for suffix in (".pt", ".pth", ".ckpt")}
    readers = {".npz": _npz, ".safetensors": load_file, **torch, ".pkl": load_pickle}
    if path.suffix not in readers:
        raise UserError(f"{path}: weights must be one of {', '.join(readers)}")
    try:
        return readers[path.suffix](path)
    except UserError:
        raise
    except Exception as error:  # any library's complaint about a damaged file becomes one line
        raise UserError(f"{path}: not a readable {path.suffix} file ({type(error).__name__}: {error})") from error


def _npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        prefixed = {name[2:]: file[name] for name in file.files if name.startswith("w/")}
        return prefixed or {name: file[name] for name in file.files}
