"""Fixed embeddings of classes for StyleGAN-XL: means of a pretrained network's pooled features over images of each class."""

import functools

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.data.source import Source, good_example
from jgen.errors import UserError
from jgen.recipes.gan.backbones import lite0
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
