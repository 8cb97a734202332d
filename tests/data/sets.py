"""Batches of a set, and files to read sets from."""

import gzip

import jax
import numpy as np
from PIL import Image

from jgen.sharding import make_mesh

MESH = make_mesh()


def take(pipeline, count, start=0, scan=0):
    """The first batches of a pipeline from a step on, on the host."""
    batches = pipeline.batches(start, scan)
    return [jax.device_get(next(batches)) for _ in range(count)]


def write_idx(folder, count=12, labels=None):
    """The four files of a set of 3x3 images, their training images its test images too; gives the images."""
    images = np.arange(count * 9, dtype=np.uint8).reshape(count, 3, 3)
    labels = np.arange(count, dtype=np.uint8) % 10 if labels is None else labels
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
        for prefix in ("train", "t10k"):
            with gzip.open(folder / f"{prefix}-{stem}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return images


def write_folder(path):
    """Twelve images of odd sizes in two classes; image i of a class is grey level 10 i."""
    for name in ("cats", "dogs"):
        (path / name).mkdir(parents=True)
        for i in range(6):
            suffix = (".png", ".jpg", ".webp")[i % 3]
            Image.fromarray(np.full((20 + i, 30, 3), 10 * i, np.uint8)).save(path / name / f"{i}{suffix}")
    return path
