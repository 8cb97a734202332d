"""torch's checkpoint files -> {official name: ndarray}, never running code from the file.

Both of torch's formats: the zip of version 1.6 and newer, and the stream of pickles before it. The zip of a TorchScript program
holds a module in place of a dict (`torch_script`).
"""

import io
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import ml_dtypes
import numpy as np

from jgen.convert import torch_script
from jgen.convert.pickles import OPERATION, Function, Resolve, refused, unpickle
from jgen.convert.weight_sets import choose, weight_sets
from jgen.errors import UserError
from jgen.untrusted import Budget, budget_of, read_entry, readable

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
    "UntypedStorage": np.uint8,
}
DTYPES = {
    "float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16, "int64": np.int64,
    "int32": np.int32, "int16": np.int16, "int8": np.int8, "uint8": np.uint8, "bool": np.bool_,
}  # fmt: skip
DIMENSIONS = 32
MAGIC = 0x1950A86A20F9469CFC6C
"""The first number of a file before version 1.6."""


class Storage(NamedTuple):
    """The numbers of one or several tensors, and the memory that arrays made of them count against."""

    values: np.ndarray
    budget: Budget


def tensor_names(budget: Budget) -> dict[tuple[str, str], Any]:
    """The names of a file that holds tensors: (module, name) -> function or value."""
    types = {(module, name): dtype for module in ("torch", "torch.storage") for name, dtype in STORAGE.items()}
    return {
        **types,
        **{("torch", name): dtype for name, dtype in DTYPES.items()},
        ("torch._utils", "_rebuild_tensor"): Function(_rebuild),
        ("torch._utils", "_rebuild_tensor_v2"): Function(_rebuild),
        ("torch._utils", "_rebuild_parameter"): Function(lambda data, *_: data),
        ("torch", "Size"): Function(lambda sides=(): tuple(sides[:DIMENSIONS])),
        ("torch", "device"): Function(lambda *parts: None),
        ("torch.serialization", "_get_layout"): Function(lambda name: None),
        ("argparse", "Namespace"): Function(lambda: {}),  # options beside the weights, which are not read
        ("collections", "OrderedDict"): Function(lambda pairs=(): _ordered(pairs, budget)),
    }


def _ordered(pairs: Any, budget: Budget) -> OrderedDict[str, Any]:
    """Built from its pairs, as Python 2 wrote it, or empty."""
    budget.take(OPERATION * len(pairs))
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs):
        raise ValueError("an ordered dict of what are no pairs")
    return OrderedDict(pairs)


def _rebuild(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """A tensor of a storage. Its numbers must lie in it, and it can't hold more than there are (no stride of 0)."""
    sides = isinstance(size, tuple | list) and isinstance(stride, tuple | list) and len(size) == len(stride) <= DIMENSIONS
    if not (isinstance(storage, Storage) and sides and all(type(n) is int and n >= 0 for n in (offset, *size, *stride))):
        raise ValueError("a tensor without a storage, or whose shape and strides are none")
    values = storage.values
    count, last = 1, offset
    for n, s in zip(size, stride):
        count *= n
        last += max(n - 1, 0) * s
    if count > len(values) or (count and last >= len(values)):
        raise UserError(f"{storage.budget.path}: a tensor of shape {str(tuple(size))[:60]} reaches outside of its storage")
    if not count:
        return np.zeros(tuple(size), values.dtype)
    storage.budget.take(count * values.itemsize)
    strides = tuple(s * values.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], tuple(size), strides, writeable=False).copy()


def storage_of(data: bytes, dtype: Any, count: Any, budget: Budget) -> Storage:
    """A storage over bytes, which must be as many as `count` numbers take. Raises UserError where they are not."""
    kind = _dtype(dtype, budget)
    if type(count) is not int or count < 0 or count * kind.itemsize != len(data):
        raise UserError(f"{budget.path}: a storage of {str(count)[:30]} {kind} has {len(data)} bytes")
    return Storage(np.frombuffer(data, kind, count), budget)


def _dtype(dtype: Any, budget: Budget) -> np.dtype:
    if not any(dtype is known for known in (*STORAGE.values(), *DTYPES.values())):
        raise UserError(f"{budget.path}: a storage of no known type of numbers")
    return np.dtype(dtype)


def load_torch(path: Path, weights: str = "") -> dict[str, np.ndarray]:
    """One set of weights of a torch file; see `files.load_weights`."""
    budget = budget_of(path)
    with open(path, "rb") as file:
        content = read_torch(file, budget)
    return choose(weight_sets(content), weights, path)


def torch_options(path: Path, name: str) -> dict[str, Any]:
    """The options that a torch file keeps under a name beside its weights: those that are plain; none where there are none.

    Raises UserError for a file that can't be read.
    """
    with readable(path), open(path, "rb") as file:
        content = read_torch(file, budget_of(path))
    found = content.get(name) if isinstance(content, Mapping) else None
    plain = found.items() if isinstance(found, Mapping) else ()
    return {key: value for key, value in plain if isinstance(key, str) and isinstance(value, bool | int | float | str)}


def read_torch(file: BinaryIO, budget: Budget) -> Any:
    """The content of a torch file of either format: arrays for its tensors and storages."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            return _zipped(archive, budget)
    file.seek(0)
    return _streamed(file, budget)


def _resolver(budget: Budget, program: bool = False) -> Resolve:
    """Tensors' names; of a TorchScript program also its own classes, as records without code."""
    known = tensor_names(budget) | (torch_script.program_names() if program else {})

    def resolve(module: str, name: str) -> Any:
        if program and torch_script.is_program_class(module):
            return Function(torch_script.Module)
        if (module, name) not in known:
            raise refused(budget.path, module, name, "not a tensor")
        return known[module, name]

    return resolve


def _zipped(archive: zipfile.ZipFile, budget: Budget) -> Any:
    root = next((n for n in archive.namelist() if n.endswith("data.pkl")), None)
    if root is None:
        raise UserError(f"{budget.path}: a zip without data.pkl is no torch file")
    root = root.removesuffix("data.pkl")
    order = f"{root}byteorder"
    program = f"{root}constants.pkl" in archive.NameToInfo
    if order in archive.NameToInfo and read_entry(archive, order, budget) != b"little":
        raise UserError(f"{budget.path}: is written in big-endian numbers, which can't be read")
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Storage:
        dtype, key, count = _storage_id(pid)
        if key not in storages:
            data = read_entry(archive, f"{root}data/{key}", budget)
            storages[key] = storage_of(data, dtype, count, budget)
        return storages[key]

    file = io.BytesIO(read_entry(archive, f"{root}data.pkl", budget))
    content = unpickle(file, _resolver(budget, program), budget, persistent)
    return torch_script.state_dict(content, budget) if isinstance(content, torch_script.Module) else content


def _storage_id(pid: Any) -> tuple[Any, str, Any]:
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[2], str):
        raise ValueError("a persistent id that is no storage's")
    _, dtype, key, _, count = pid[:5]
    return dtype, key, count


class _Later:
    """A storage of the old format, whose numbers stand behind the pickles."""

    def __init__(self, key: str, dtype: Any, count: Any):
        self.key, self.dtype, self.count = key, dtype, count


def _streamed(file: BinaryIO, budget: Budget) -> Any:
    """The old format: magic number, version, machine, the content, keys, and then the storages; read twice.

    The storages come last, so that the first reading of the content only finds their types and sizes.
    """
    resolve = _resolver(budget)
    if unpickle(file, resolve, budget) != MAGIC:
        raise UserError(f"{budget.path}: neither of torch's two formats")
    for _ in range(2):
        unpickle(file, resolve, budget)
    start, found = file.tell(), {}

    def note(pid: Any) -> _Later:
        dtype, key, count = _storage_id(pid)
        if len(pid) > 5 and pid[5] is not None:
            raise UserError(f"{budget.path}: has a storage that is a view of another, as files before version 0.4 do")
        return found.setdefault(key, _Later(key, dtype, count))

    def anything(module: str, name: str) -> Any:
        value = resolve(module, name)
        return Function(lambda *_: OrderedDict()) if isinstance(value, Function) else value

    unpickle(file, anything, budget, note)
    keys = unpickle(file, resolve, budget)
    storages: dict[str, Storage] = {}
    for key in keys if isinstance(keys, list) else []:
        later = found[key]
        size = int.from_bytes(file.read(8), "little")
        if size != later.count:
            raise UserError(f"{budget.path}: a storage of {str(later.count)[:30]} numbers holds {size}")
        length = size * _dtype(later.dtype, budget).itemsize
        budget.take(length)
        storages[key] = storage_of(file.read(length), later.dtype, size, budget)
    file.seek(start)
    return unpickle(file, resolve, budget, lambda pid: storages[_storage_id(pid)[1]])
