"""The images that others are compared with, and their statistics, kept between runs."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jgen.config import DataConfig
from jgen.data.fingerprint import fingerprint
from jgen.data.source import Source
from jgen.errors import UserError
from jgen.files import cache_folder, replacing
from jgen.metrics import frechet
from jgen.metrics.collect import OF_CLASSES, OF_FEATURES, Collected, collect
from jgen.metrics.extract import DAMAGED, Extractor
from jgen.metrics.image_sets import image_batches

ENDLESS = 10_000
"""Reference images of a set without end, where no number is given."""


@dataclass(frozen=True)
class Reference:
    """The images that others are compared with."""

    name: str
    split: str
    num: int
    sha256: str
    """Hash of the pixels; of an endless set, of 256 examples."""
    source: Source

    def facts(self) -> dict[str, Any]:
        """The facts that a record states about it."""
        return {f"reference{suffix}": value for suffix, value in
                (("", self.name), ("_split", self.split), ("_num", self.num), ("_sha256", self.sha256))}  # fmt: skip

    def batches(self, size: int) -> Iterator[np.ndarray]:
        return image_batches(self.source, self.num, size)


def make_reference(source: Source, data: DataConfig, num: int = 0) -> Reference:
    """The first `num` images of a source; all of them where num is 0. Raises UserError where there are fewer."""
    if num > len(source):
        raise UserError(f"reference_num={num}: the {data.split} split of {data.name} has {len(source)} images")
    num = num or (ENDLESS if source.endless else len(source))
    return Reference(data.name, data.split, num, fingerprint(source, num), source)


def collect_reference(reference: Reference, extractor: Extractor, mesh: Mesh, metrics: Sequence[str], batch: int) -> Collected:
    """Statistics of the reference, from the cache where it is there: moments, and features where a metric asks.

    The cache's file names hold the hashes of images and extractor, so that it can't be stale.
    """
    keep = bool(set(metrics) & OF_FEATURES)
    key = hashlib.sha256(f"1 {reference.sha256} {reference.num} {extractor.sha256} {extractor.resize}".encode()).hexdigest()
    folder = cache_folder("references")
    paths = (folder / f"{key}.moments.npz", folder / f"{key}.features.npy") if folder else None
    # Several processes must all compute, or all not: their folders may differ.
    if paths and jax.process_count() == 1 and paths[0].is_file() and (not keep or paths[1].is_file()):
        try:
            with np.load(paths[0]) as file:
                moments = frechet.Moments(*(file[name] for name in frechet.Moments._fields))  # pyright: ignore
            return Collected(moments, np.load(paths[1], mmap_mode="r") if keep else None, None)
        except DAMAGED:
            pass  # a file cut short: made again below
    wanted = [m for m in metrics if m not in OF_CLASSES]
    found = collect(reference.batches(batch), extractor, mesh, reference.num, wanted, f"{reference.name} {reference.split}")
    if paths and jax.process_index() == 0:
        arrays: Any = {k: np.asarray(v) for k, v in found.moments._asdict().items()}
        _write(paths[0], lambda file: np.savez(file, **arrays))
        if found.features is not None:
            features = found.features
            _write(paths[1], lambda file: np.save(file, features))
    return found


def _write(path: Path, save: Callable[[Any], None]) -> None:
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            save(file)
    except OSError as error:
        print(f"{path}: the reference's statistics could not be kept ({error.strerror}); the score is not affected")
