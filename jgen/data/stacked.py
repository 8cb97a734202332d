"""Stacked digits: three digits as the colours of one image, 1,000 modes that are known (Metz et al. 2017, arXiv:1611.02163)."""

import numpy as np

from jgen.data.source import ArraySource

SIZES = {"train": 50_000, "test": 10_000}
CLASSES = tuple(f"{i:03}" for i in range(1000))
"""The digits in red, green and blue, side by side."""


def stacked(digits: ArraySource, split: str) -> ArraySource:
    """Images uint8 [N, H, W, 3] of three digits each, drawn alike from a set of ten classes; the label is 100 r + 10 g + b.

    Every split is the same in each run. Digits of one class are drawn with equal probability, so all modes are equally likely.
    """
    random = np.random.default_rng([0, len(digits)])
    labels = random.integers(0, 10, (SIZES[split], 3))
    of_class = [np.flatnonzero(digits.arrays["label"] == k) for k in range(10)]
    counts = np.asarray([len(each) for each in of_class])
    places = random.integers(0, 2**31, labels.shape) % counts[labels]
    first = np.concatenate([[0], np.cumsum(counts)[:-1]])
    chosen = np.concatenate(of_class)[first[labels] + places]
    images = np.stack([digits.arrays["image"][chosen[:, i], :, :, 0] for i in range(3)], -1)
    label = (labels @ np.asarray([100, 10, 1])).astype(np.int32)
    return ArraySource({"image": images, "label": label}, CLASSES, "stacked_digits")
