"""IDX files, the format of MNIST and Fashion-MNIST, plain or gzipped."""

import math
import os
import zlib
from pathlib import Path

import numpy as np

from jgen.data.source import ArraySource
from jgen.errors import UserError
from jgen.untrusted import read_maybe_gzipped

FASHION_MNIST = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
DEBIAN = Path(os.sep, "usr", "share", "datasets", "fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""
PREFIX = {"train": "train", "test": "t10k"}


def fashion_mnist_folder(root: str = "") -> Path | None:
    """The folder that holds Fashion-MNIST's IDX files: `root`, or Debian's; None where neither does."""
    for folder in (Path(root), DEBIAN) if root else (DEBIAN,):
        if any(folder.glob("train-images-idx3-ubyte*")):
            return folder
    return None


def idx_source(folder: Path, split: str, name: str, classes: tuple[str, ...] = ()) -> ArraySource:
    """Images and labels of a folder of IDX files named as MNIST's; classes are numbered where no names are given.

    Raises UserError for a missing, truncated or foreign file.
    """
    if split not in PREFIX:
        raise UserError(f"data.split={split}: {name} has train and test")
    images = read_idx(_file(folder, f"{PREFIX[split]}-images-idx3-ubyte"), 3)[..., None]
    labels = read_idx(_file(folder, f"{PREFIX[split]}-labels-idx1-ubyte"), 1).astype(np.int32)
    if not classes:  # those of both splits, since one alone may lack the last class
        both = [read_idx(_file(folder, f"{prefix}-labels-idx1-ubyte"), 1) for prefix in PREFIX.values()]
        classes = tuple(str(i) for i in range(max(int(each.max(initial=0)) for each in both) + 1))
    return ArraySource({"image": images, "label": labels}, classes, name)


def read_idx(path: Path, ndim: int) -> np.ndarray:
    """The uint8 array of `ndim` axes in an IDX file. Raises UserError naming the file where it can't be read."""
    try:
        raw = read_maybe_gzipped(path)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: truncated or not gzip ({error})") from error
    if len(raw) < 4 + 4 * ndim or raw[:4] != bytes([0, 0, 8, ndim]):
        raise UserError(f"{path}: not an IDX file of bytes with {ndim} axes")
    shape = np.frombuffer(raw, ">u4", ndim, 4).astype(np.int64)
    data = np.frombuffer(raw, np.uint8, offset=4 + 4 * ndim)
    if len(data) != math.prod(map(int, shape)):
        raise UserError(f"{path}: has {len(data)} bytes of data, its header says {' x '.join(map(str, shape))}")
    return data.reshape(shape)


def _file(folder: Path, stem: str) -> Path:
    dotted = stem.replace("-idx", ".idx")
    for path in (folder / f"{name}{suffix}" for name in (stem, dotted) for suffix in ("", ".gz")):
        if path.is_file():
            return path
    raise UserError(f"{folder}: has no {stem}, with or without .gz")
