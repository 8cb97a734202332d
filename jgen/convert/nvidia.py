"""NVIDIA's network pickles (StyleGAN2-ADA, StyleGAN3, EDM) -> {official name: ndarray}, never running code from the file.

Such a pickle holds the source of its classes and asks to run it. Here every class is an inert stand-in that keeps its state,
every tensor an array, and whatever else the file asks for is refused by name.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jgen.convert.torch_files import STORAGE, TensorUnpickler, rebuild_tensor
from jgen.errors import UserError

DTYPES = {"float16": np.float16, "float32": np.float32, "float64": np.float64, "int64": np.int64, "int32": np.int32}
NUMPY = {"_reconstruct", "scalar", "ndarray", "dtype"}


class Module:
    """A stand-in for any network class of the file."""

    def __init__(self, *_: Any, **__: Any):
        self.state: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.state = dict(state) if isinstance(state, Mapping) else {}

    def tensors(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by the names of a state dict."""
        own = {}
        for kind in ("_parameters", "_buffers"):
            own |= {k: v for k, v in dict(self.state.get(kind) or {}).items() if isinstance(v, np.ndarray)}
        for name, part in dict(self.state.get("_modules") or {}).items():
            if isinstance(part, Module):
                own |= {f"{name}.{k}": v for k, v in part.tensors().items()}
        return own


def _persistent(meta: Mapping[str, Any]) -> Module:
    """The module that the file would rebuild from the source it carries."""
    module = Module()
    module.__setstate__(meta["state"])
    return module


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path):
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Callable[..., Any]] = {
            ("torch_utils.persistence", "_reconstruct_persistent_obj"): _persistent,
            ("dnnlib.util", "EasyDict"): dict,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): lambda data, requires_grad, hooks: data,
            ("torch.storage", "_load_from_bytes"): lambda data: storage_from_bytes(data, self.path),
            ("torch", "Size"): tuple,
            ("torch", "device"): lambda *parts: ":".join(map(str, parts)),
            ("_codecs", "encode"): lambda text, encoding: text.encode(encoding),
        }
        if (module, name) in known:
            return known[module, name]
        if module.startswith("torch.nn.modules."):
            return Module
        if module == "torch" and name in DTYPES:
            return DTYPES[name]
        if module.split(".")[0] == "numpy" and name in NUMPY:
            return super().find_class(module, name)
        raise UserError(f"{self.path}: refused, the file asks to load {module}.{name}, which is neither tensor nor network")


class _LegacyUnpickler(pickle.Unpickler):
    """Storages of torch's old format: what a persistent id names is filled in later."""

    def __init__(self, file: io.BytesIO, path: Path, found: dict[str, Any]):
        super().__init__(file)
        self.path, self.found = path, found

    def find_class(self, module: str, name: str) -> Any:
        if module in ("torch", "torch.storage") and name in STORAGE:
            return STORAGE[name]
        raise UserError(f"{self.path}: refused, a tensor of the file asks to load {module}.{name}")

    def persistent_load(self, pid: Any) -> str:
        _, dtype, key, _, count = pid[:5]
        self.found[key] = (dtype, count)
        return key


def storage_from_bytes(data: bytes, path: Path) -> np.ndarray:
    """A storage that torch.save wrote into bytes, in its old format or its zip."""
    if zipfile.is_zipfile(io.BytesIO(data)):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            root = next(n for n in archive.namelist() if n.endswith("data.pkl"))[: -len("data.pkl")]
            return TensorUnpickler(archive, root, path).load()
    file, found = io.BytesIO(data), {}
    for _ in range(3):  # the magic number, the version, the machine
        _LegacyUnpickler(file, path, found).load()
    wanted = _LegacyUnpickler(file, path, found).load()
    arrays = {}
    for key in _LegacyUnpickler(file, path, found).load():
        dtype, count = found[key]
        size = int(np.frombuffer(file.read(8), np.int64)[0])
        if size != count:
            raise UserError(f"{path}: a storage of {count} numbers holds {size}")
        arrays[key] = np.frombuffer(file.read(size * np.dtype(dtype).itemsize), dtype)
    return arrays[wanted]


def load_pickle(path: Path) -> dict[str, np.ndarray]:
    """Weights of all networks of a pickle; of several, their names ("G_ema.") come first.

    Raises UserError for a file that asks for anything but tensors and networks.
    """
    content = _Unpickler(io.BytesIO(path.read_bytes()), path).load()
    parts = {"": content} if isinstance(content, Module) else {k: v for k, v in content.items() if isinstance(v, Module)}
    networks = {name: tensors for name, part in parts.items() if (tensors := part.tensors())}  # a loss is an object without any
    if not networks:
        raise UserError(f"{path}: holds no network")
    if len(networks) == 1:
        return next(iter(networks.values()))
    return {f"{name}.{k}": v for name, tensors in networks.items() for k, v in tensors.items()}
