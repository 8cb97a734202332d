"""HDF5 files of weights: arrays of numbers that lie in the file itself, and nothing else."""

from pathlib import Path
from typing import Any

import numpy as np

from jgen.errors import UserError
from jgen.untrusted import budget_of


def load_hdf5(path: Path, weights: str = "") -> dict[str, np.ndarray]:
    """{name with its groups: array} of all datasets; weights: the group to take them from.

    Raises UserError where h5py is not installed, and for a file that holds anything but numbers, that points out of itself, or
    whose arrays are out of proportion to it.
    """
    try:
        import h5py
    except ImportError as error:
        raise UserError(f"{path}: reading .h5 files needs h5py; run: pip install h5py") from error
    budget, found = budget_of(path), {}

    def take(name: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.external or item.is_virtual:
            raise UserError(f"{path}: refused, {name} lies in another file")
        if item.dtype.kind not in "fiub":
            raise UserError(f"{path}: refused, {name} holds {item.dtype}; must be numbers")
        budget.take(item.size * item.dtype.itemsize if item.shape is not None else 0)
        found[name] = np.asarray(item[()])

    with h5py.File(path, "r") as file:
        group = file.get(weights) if weights else file
        if not isinstance(group, h5py.Group):
            raise UserError(f"weights={weights}: {path} has no group of this name; there are {', '.join(file) or 'none'}")
        group.visititems(take)  # which follows no links, soft or to other files
    return found
