"""Files from strangers: a limit on the memory that reading one takes, and a reader of .npz files that keeps it."""

import contextlib
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from jgen.errors import UserError

FLOOR = 64 * 2**20
FACTOR = 32
"""Reading a file may take FLOOR + FACTOR * its size bytes of memory. Compressed arrays of real weights stay well below."""
NUMERIC = "biufc"
"""Kinds of numpy's dtypes that are plain numbers."""


class Budget:
    """The memory that reading a file may still take. Raises UserError, naming the file, where it is spent."""

    def __init__(self, path: Path, size: int):
        self.path, self.left = path, FLOOR + FACTOR * size
        self.limit = self.left

    def take(self, count: int) -> None:
        """Counts so many bytes, before they are taken."""
        self.left -= count
        if self.left < 0:
            raise UserError(
                f"{self.path}: refused, reading it takes more than {self.limit // 2**20} MiB of memory, out of proportion to "
                "the file"
            )


def budget_of(path: Path) -> Budget:
    """The memory for reading a file."""
    return Budget(path, path.stat().st_size)


def read_entry(archive: zipfile.ZipFile, name: str, budget: Budget) -> bytes:
    """One entry of a zip, its size counted. Raises UserError for compressions whose output can't be bounded."""
    info = archive.getinfo(name)
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(
            f"{budget.path}: refused, {name} is compressed by method {info.compress_type}; must be stored or deflated"
        )
    budget.take(info.file_size)
    return archive.read(info)


def read_npz(path: Path, wanted: Callable[[str], bool] = lambda name: True, kinds: str = NUMERIC) -> dict[str, np.ndarray]:
    """{name: array} of the wanted arrays of an .npz, of dtypes of these kinds ("U" are texts); those of others are left out.

    Objects are never read, and an array's size is checked against its bytes before it is made. Memory is limited by the
    file's size (see `FACTOR`). Raises UserError for what goes beyond, else what zipfile and numpy raise for damaged files.
    """
    budget, found = budget_of(path), {}
    with zipfile.ZipFile(path) as archive:
        for entry in archive.namelist():
            name = entry.removesuffix(".npy")
            if name != entry and wanted(name):
                array = _array(read_entry(archive, entry, budget), name, budget.path, kinds)
                found |= {} if array is None else {name: array}
    return found


def read_npy(path: Path) -> np.ndarray:
    """The array of real numbers in a .npy file, checked against the file's size before it is made.

    Raises UserError for anything else and for sizes that do not fit, else what numpy raises for a damaged file.
    """
    array = _array(path.read_bytes(), path.name, path.parent, "biuf")
    if array is None:
        raise UserError(f"{path}: holds complex numbers; must be real ones")
    return array


def read_maybe_gzipped(path: Path) -> bytes:
    """The bytes of a file, unpacked where it is gzipped, whatever its name says.

    Raises UserError for what expands out of proportion, else OSError or EOFError for a damaged file.
    """
    with open(path, "rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    if not packed:
        return path.read_bytes()
    budget, parts = budget_of(path), []
    try:
        with gzip.open(path) as file:
            while part := file.read(2**20):
                budget.take(len(part))
                parts.append(part)
    except zlib.error as error:
        raise OSError(f"{path}: a damaged gzip file ({error})") from error
    return b"".join(parts)


def _array(data: bytes, name: str, path: Path, kinds: str) -> np.ndarray | None:
    file = io.BytesIO(data)
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise UserError(f"{path}: {name} is written in version {version} of the format; must be 1.0 or 2.0")
    shape, fortran, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in NUMERIC + kinds or dtype.names or dtype.subdtype:
        raise UserError(f"{path}: {name} holds {dtype}, which are no plain numbers; refused")
    if dtype.kind not in kinds:
        return None
    return checked_array(data[file.tell() :], dtype, shape, f"{path}: {name}", order="F" if fortran else "C")


def checked_array(data: bytes, dtype: np.dtype, shape: tuple[int, ...], what: str, order: str = "C") -> np.ndarray:
    """An array over bytes, which must be as many as its shape says. Raises UserError where they are not."""
    count = 1
    for side in shape:
        count *= side if isinstance(side, int) and side >= 0 else -1
    if count < 0 or count * dtype.itemsize != len(data) or len(shape) > 32:
        raise UserError(f"{what} has {len(data)} bytes, its shape {str(shape)[:60]} of {dtype} is of {count * dtype.itemsize}")
    return np.frombuffer(data, dtype, count).reshape(shape, order=order)  # pyright: ignore[reportArgumentType, reportCallIssue]


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """A block that reads a file, in which any library's complaint about a damaged one becomes a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(f"{path}: not a readable {path.suffix} file ({reason})") from error
