"""torch's checkpoint files -> {official name: ndarray}, never running code from the file."""

import io
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jgen.errors import UserError

# torch's storage classes, by the names under which they stand in a checkpoint.
STORAGE = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class TensorUnpickler(pickle.Unpickler):
    """Rebuilds tensors as arrays and refuses every other global, by name."""

    def __init__(self, archive: zipfile.ZipFile, root: str, path: Path):
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self.archive, self.root, self.path = archive, root, path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return rebuild_tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda data, requires_grad, hooks: data
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in STORAGE:
            return STORAGE[name]
        raise UserError(f"{self.path}: refused, the file asks to load {module}.{name}, which is not a tensor")

    def persistent_load(self, pid: Any) -> np.ndarray:
        _, dtype, key, _, count = pid
        return np.frombuffer(self.archive.read(f"{self.root}data/{key}"), dtype, count)


def rebuild_tensor(storage: np.ndarray, offset: int, size: tuple, stride: tuple, *_: Any) -> np.ndarray:
    strides = tuple(s * storage.itemsize for s in stride)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride)) if all(size) else 0
    if offset < 0 or min((*stride, 0)) < 0 or min((*size, 0)) < 0 or last >= max(len(storage), 1):
        raise UserError("a tensor reaches outside of its storage")
    return np.lib.stride_tricks.as_strided(storage[offset:], size, strides).copy()


def load_torch(path: Path) -> dict[str, np.ndarray]:
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path}: not a torch file of version 1.6 or newer; load and save it once with a newer torch")
    with zipfile.ZipFile(path) as archive:
        root = next(n for n in archive.namelist() if n.endswith("data.pkl"))[: -len("data.pkl")]
        content = TensorUnpickler(archive, root, path).load()
    for key in ("state_dict", "model", "ema"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    weights = {name: value for name, value in content.items() if isinstance(value, np.ndarray)}
    if not weights:
        raise UserError(f"{path}: holds no tensors")
    return weights
