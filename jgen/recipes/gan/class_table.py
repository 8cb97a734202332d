"""Fixed embeddings of classes for StyleGAN-XL: means of a pretrained network's pooled features over images of each class."""

import functools

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.errors import UserError
from jgen.recipes.gan.backbones import lite0
from jgen.recipes.gan.feature_heads import resized

EACH, SEARCHED = 16, 4096
"""Images of a class that count, among so many first ones of the set."""
WIDTH = 320
"""Features of EfficientNet-Lite0's last map."""


@functools.lru_cache(4)
def class_table(data: DataConfig, side: int) -> np.ndarray:
    """float32 [classes, 320]. A class without an image among the first has the mean of the others.

    Zeros where the set can't be read: a run is sampled where its data is not, and has its table in its checkpoints.
    """
    try:
        source = open_source(data)
    except UserError:
        return np.zeros((data.num_classes, WIDTH), np.float32)
    chosen: dict[int, list[np.ndarray]] = {k: [] for k in range(data.num_classes)}
    for i in range(min(len(source), SEARCHED)):
        example = source[i]
        if len(chosen[int(example["label"])]) < EACH:
            chosen[int(example["label"])].append(scaled(example["image"]))
    net, weights = lite0()
    with jax.ensure_compile_time_eval():
        run = jax.jit(lambda x: net.apply({"params": weights}, resized(x, side)).pooled)  # pyright: ignore
        pad = lambda images: np.stack([images[i % len(images)] for i in range(EACH)])  # noqa: E731
        means = {k: np.asarray(run(pad(images))).mean(0) for k, images in chosen.items() if images}
    rest = np.mean(list(means.values()), 0)
    return np.stack([means.get(k, rest) for k in chosen]).astype(np.float32)
