"""A hash of a set's pixels, so that a changed set is never taken for the one before."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jgen.data.source import ArraySource, Source, Wrapped, good_example
from jgen.files import cache_folder, replacing

SHOWN = 256
"""Examples of an endless set."""
AT_ONCE = 256


def fingerprint(source: Source, num: int) -> str:
    """The sha256 of the first `num` images, all of their pixels; of an endless set, which is made as needed, of 256.

    A large set is read whole once; after that its hash is kept by the names, sizes and times of its files, and computed anew
    when any of them changes.
    """
    stamp = _stamp(source, num)
    folder = cache_folder("fingerprints") if stamp else None
    path = folder / stamp if folder and stamp else None
    if path and path.is_file() and len(known := path.read_text()) == 64:
        return known
    digest = hashlib.sha256(f"{num} {source.shape}".encode())
    for images in _images(source, num):
        digest.update(images.tobytes())
    if path:
        try:
            with replacing(path) as temporary:
                temporary.write_text(digest.hexdigest())
        except OSError:
            pass  # a cache that can't be written costs time only
    return digest.hexdigest()


def _stamp(source: Source, num: int) -> str:
    """A hash of the names, sizes and times of a set's files; "" where it is in memory, endless or has none."""
    inner = source
    while isinstance(inner, Wrapped):
        inner = inner.source
    paths = getattr(inner, "paths", None)
    if paths is None or source.endless or isinstance(source, ArraySource):
        return ""
    how = f"{getattr(inner, 'ground', '')} {getattr(inner, 'split', '')}{_resize(inner)}"
    digest = hashlib.sha256(f"{num} {source.shape} {how}".encode())
    for path in paths():
        found = path.stat()
        digest.update(f"{path} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _resize(source: object) -> str:
    """How a set resizes its images; "" for bicubic, as sets are known by which have no choice."""
    how = getattr(source, "resize", "")
    return "" if how == "bicubic" else how


def _images(source: Source, num: int) -> Iterator[np.ndarray]:
    if isinstance(source, ArraySource):
        yield source.arrays["image"][:num]
        return
    indices = np.linspace(0, num - 1, min(num, SHOWN)).astype(int) if source.endless else np.arange(num)
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(indices), AT_ONCE):
            yield from pool.map(lambda i: good_example(source, int(i))[0]["image"], indices[start : start + AT_ONCE])
