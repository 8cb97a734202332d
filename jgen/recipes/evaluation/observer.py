"""Features and logits of samples and of held-out images, by the classifier that ships with jgen for their set."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jgen.errors import UserError
from jgen.metrics.extract import SHIPPED, open_extractor
from jgen.types import Array, Batch, Key, PyTree


class Observation(NamedTuple):
    """The classifier's outputs for some images, on the host."""

    features: np.ndarray
    """[N, F]."""
    logits: np.ndarray
    """[N, classes]."""


class Observer:
    """The classifier of a set. Raises UserError where none ships with jgen, or where it names no classes."""

    def __init__(self, name: str):
        self.extractor = open_extractor("", name)
        self.knows_classes = self.extractor.name in SHIPPED
        """Whether its classes are those of the set; EfficientNet-Lite0's are ImageNet's."""
        self._observe = jax.jit(
            lambda variables, x: self.features_and_logits(variables, jnp.round((jnp.clip(x, -1, 1) + 1) * 127.5))
        )

    def features_and_logits(self, variables: PyTree, pixels: Array) -> tuple[Array, Array]:
        """(features [B, F], logits [B, classes]) of pixels in 0..255; they are not rounded, so gradients pass."""
        features, logits = self.extractor.apply(variables, pixels)
        if logits is None:
            raise UserError(f"extractor={self.extractor.name}: names no classes")
        return features, logits

    def observe(self, images: Iterable[Array]) -> Observation:
        """The outputs for batches of images in [-1, 1], which are rounded to 8 bits as when they are written.

        The outputs are gathered batch by batch, so that no two programs with collectives run at the same time.
        """
        found = [tuple(map(to_host, self._observe(self.extractor.variables, x))) for x in images]
        return Observation(*map(np.concatenate, zip(*found)))

    def observe_samples(self, draw: Callable[[Array], Array], key: Key, like: Sequence[Array]) -> Observation:
        """The outputs for as many samples as `like` has images, on the same devices; draw(keys) -> images in [-1, 1]."""
        return self.observe(draw(keys) for keys in image_keys_like(key, like))


def image_keys_like(key: Key, like: Sequence[Array]) -> Iterator[Array]:
    """One key for every image of `like`, batch by batch; a key depends on the image's number alone."""
    first = 0
    for images in like:
        make = jax.jit(_numbered, static_argnums=2, out_shardings=images.sharding)
        yield make(key, first, len(images))
        first += len(images)


def _numbered(key: Key, first: int, count: int) -> Array:
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(first + jnp.arange(count))


def to_host(x: Array) -> np.ndarray:
    """An array as numpy, with the parts that other hosts hold."""
    return np.asarray(x if x.is_fully_addressable else process_allgather(x, tiled=True))


def has_classifier(data: str) -> bool:
    """Whether a classifier of the set ships with jgen."""
    return f"{data}_cnn" in SHIPPED


def held_out(batches: Iterator[Batch], count: int) -> list[Array]:
    """The images of the next `count` batches."""
    return [next(batches)["image"] for _ in range(count)]
