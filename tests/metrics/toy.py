"""Images of noise, and an extractor whose features are known."""

import numpy as np

from jgen.metrics import extract


def linear_extractor(dim=6, name="toy"):
    """Features are fixed sums of pixels, so that what a score must be is known."""
    weights = np.random.default_rng(1).normal(size=(64, dim)).astype(np.float32)

    def apply(variables, levels):
        features = levels.reshape(len(levels), -1) / 255 @ variables
        return features, features[:, :3]

    return extract.Extractor(name, "0" * 64, "none", weights, apply)


def images(count, seed=0, shape=(8, 8, 1)):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)
