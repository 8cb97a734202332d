"""Fixed embeddings of classes for StyleGAN-XL: means of a pretrained network's pooled features over images of each class."""

import functools
from pathlib import Path

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.convert import load_weights
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.data.source import Source, good_example
from jgen.errors import UserError
from jgen.recipes.gan.backbones import lite0, replaceable
from jgen.recipes.gan.feature_heads import resized

EACH, SEARCHED = 16, 64
"""Images of a class that count, and images that are looked at for each class: folders are sorted by class, and any place of
the set is as likely."""
WIDTH = 320
"""Features of EfficientNet-Lite0's last map."""


@functools.lru_cache(4)
def class_table(data: DataConfig, side: int) -> np.ndarray:
    """float32 [classes, 320]. A class of which none is found has the mean of the others, and a line says so.

    Zeros where the set can't be read: a run is sampled where its data is not, and has its table in its checkpoints.
    """
    try:
        source = open_source(data)
    except UserError:
        return np.zeros((data.num_classes, WIDTH), np.float32)
    chosen = of_classes(source, data.num_classes)
    if missing := [source.classes[k] for k, images in chosen.items() if not images]:
        print(f"{data.name}: no image of {', '.join(missing)} was found for an embedding; it has the mean of the others")
    net, weights = lite0()
    with jax.ensure_compile_time_eval():
        run = jax.jit(lambda x: net.apply({"params": weights}, resized(x, side)).pooled)  # pyright: ignore
        pad = lambda images: np.stack([images[i % len(images)] for i in range(EACH)])  # noqa: E731
        means = {k: np.asarray(run(pad(images))).mean(0) for k, images in chosen.items() if images}
    rest = np.mean(list(means.values()), 0)
    return np.stack([means.get(k, rest) for k in chosen]).astype(np.float32)


def read_class_table(file: str, classes: int) -> np.ndarray:
    """float32 [classes, 320]: the table in a file of weights, such as ImageNet's of the authors, which may have further rows.

    Zeros where the file is not there and a run is loaded, whose checkpoints hold its table. Raises UserError unless the file
    holds one array of 320 columns, of finite numbers, with a row for each class.
    """
    if replaceable(file):
        return np.zeros((classes, WIDTH), np.float32)
    weights = load_weights(Path(file))
    tables = {name: array for name, array in weights.items() if array.ndim == 2 and array.shape[1] == WIDTH}
    if len(tables) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in list(weights.items())[:3])
        raise UserError(f"class_file={file}: must hold one array [classes, {WIDTH}], has {len(tables)} (first: {shapes})")
    (table,) = tables.values()
    if len(table) < classes:
        raise UserError(f"class_file={file}: has {len(table)} rows, the set {classes} classes")
    table = table[:classes].astype(np.float32)
    if not np.isfinite(table).all():
        raise UserError(f"class_file={file}: holds NaN or infinity")
    return table


def of_classes(source: Source, classes: int) -> dict[int, list[np.ndarray]]:
    """{class: at most `EACH` of its images, in [-1, 1]}, looked for at `SEARCHED` random places of the set for each class."""
    chosen: dict[int, list[np.ndarray]] = {k: [] for k in range(classes)}
    for i in np.random.default_rng(0).choice(len(source), min(len(source), SEARCHED * classes), replace=False):
        example = good_example(source, int(i))[0]
        images = chosen[int(example["label"])]
        if len(images) < EACH:
            images.append(scaled(example["image"]))
        if all(len(images) == EACH for images in chosen.values()):
            break
    return chosen
