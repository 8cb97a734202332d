"""Images to be measured: a folder or an .npz of them, pairs by name, and the batches of any source."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from jgen.data.images import image_files, read_image, say_passed_over
from jgen.data.source import IN_MEMORY, ArraySource, Source, good_example
from jgen.errors import UserError
from jgen.metrics.extract import DAMAGED
from jgen.untrusted import read_npz


def image_batches(source: Source, num: int, size: int) -> Iterator[np.ndarray]:
    """The first `num` images of a source in order, uint8 [size, H, W, C]; the last batch is filled up with its last image.

    A bad file of a source that skips them counts as the next good one.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, num, size):
            rows = np.minimum(np.arange(start, start + size), num - 1)
            if isinstance(source, ArraySource):
                images = source.arrays["image"][rows]
            else:
                images = np.stack(list(pool.map(lambda i: good_example(source, int(i))[0]["image"], rows)))
            yield images


class Images(NamedTuple):
    """Images as they are, and their names: paths below the folder without suffixes, or the places in an .npz."""

    source: ArraySource
    names: tuple[str, ...]


def read_images(path: Path, ground: str = "white", option: str = "against") -> Images:
    """The images of a folder of PNG, JPEG or WebP files, or of an .npz with uint8 "images" [N, H, W, C].

    option: what names the path on the command line. Read as training reads them, but not resized. Raises UserError for
    images of different sizes or channels (naming the first two that differ), or none.
    """
    if path.suffix == ".npz" and path.is_file():
        try:
            images = read_npz(path, lambda name: name == "images")["images"]
        except DAMAGED as error:
            raise UserError(f"{option}={path}: not an .npz with uint8 images under the name images ({error})") from error
        if images.dtype != np.uint8 or images.ndim != 4:
            raise UserError(f"{option}={path}: images are {images.dtype} {images.shape}; must be uint8 [N, H, W, C]")
        return Images(ArraySource({"image": images}, name=str(path)), tuple(str(i) for i in range(len(images))))
    if not path.is_dir():
        raise UserError(f"{option}={path}: no such folder or .npz file")
    files, others = image_files(path)
    if others:
        say_passed_over(path, tuple(others.most_common()))
    with ThreadPoolExecutor() as pool:
        images = list(pool.map(lambda name: read_image(path / name, ground=ground), files))
    for file, image in zip(files, images):
        if image.shape != images[0].shape:
            sizes = ["x".join(map(str, x.shape)) for x in (images[0], image)]
            raise UserError(f"{option}={path}: {files[0]} is {sizes[0]}, {file} is {sizes[1]}; must be all alike")
    if len(images) * images[0].size > 16 * IN_MEMORY:
        raise UserError(f"{option}={path}: {len(images)} images do not fit in memory; score fewer")
    return Images(ArraySource({"image": np.stack(images)}, name=str(path)), tuple(os.path.splitext(file)[0] for file in files))


class Pairs(NamedTuple):
    """Images of two sets that have one name."""

    a: ArraySource
    b: ArraySource
    left_out: tuple[str, ...]
    """Names that only one of them has."""


def pair(a: Images, b: Images) -> Pairs:
    """Pairs by name. Raises UserError where none has one, names that occur twice, and for images of different sizes."""
    places = [{name: i for i, name in enumerate(each.names)} for each in (a, b)]
    for each, place in zip((a, b), places):
        if len(place) < len(each.names):
            name = next(n for i, n in enumerate(each.names) if place[n] != i)
            raise UserError(f"{each.source.name}: has two images of the name {name}, so that its pairs are not known")
    common = [name for name in a.names if name in places[1]]
    if not common:
        raise UserError(f"{a.source.name} and {b.source.name}: no image of one has the name of one in the other")
    if a.source.shape != b.source.shape:
        raise UserError(f"{a.source.name} holds images {a.source.shape}, {b.source.name} {b.source.shape}; they must be alike")
    found = [ArraySource(each.source[[place[n] for n in common]], name=each.source.name) for each, place in zip((a, b), places)]
    return Pairs(found[0], found[1], tuple(sorted(set(a.names) ^ set(b.names))))
