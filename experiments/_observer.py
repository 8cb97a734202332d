"""Samples and held-out images as the shipped classifier sees them: what the evaluations of GANs and of guidance go by."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jgen.errors import UserError
from jgen.metrics.extract import open_extractor
from jgen.types import Array, Batch, Key


class Seen(NamedTuple):
    features: np.ndarray
    """[N, F]."""
    logits: np.ndarray
    """[N, classes]."""


class Observer:
    """The shipped extractor of a set; a UserError where there is none, or it names no classes."""

    def __init__(self, name: str):
        self.extractor = open_extractor("", name)
        self._see = jax.jit(lambda variables, x: self.look(variables, jnp.round((jnp.clip(x, -1, 1) + 1) * 127.5)))

    def look(self, variables: object, pixels: Array) -> tuple[Array, Array]:
        """(features [B, F], logits [B, classes]) of pixels in 0..255, not rounded: differences of images keep their slope."""
        features, logits = self.extractor.apply(variables, pixels)
        if logits is None:
            raise UserError(f"extractor={self.extractor.name}: names no classes")
        return features, logits

    def see(self, images: Sequence[Array]) -> Seen:
        """Batches of images in [-1, 1], rounded to 8 bits as when they are written."""
        return self._together(images)

    def samples(self, draw: Callable[[Array], Array], key: Key, like: Sequence[Array]) -> Seen:
        """draw(keys) -> images, as many as `like` and on the same devices; keys as of `keys`."""
        return self._together(draw(keys) for keys in self.keys(key, like))

    def keys(self, key: Key, like: Sequence[Array]) -> Iterator[Array]:
        """A key for every image of `like`, of its number alone."""
        first = 0
        for images in like:
            numbers = first + jnp.arange(len(images))
            yield jax.device_put(jax.vmap(lambda n: jax.random.fold_in(key, n))(numbers), images.sharding)
            first += len(images)

    def _together(self, batches: Sequence[Array] | Iterator[Array]) -> Seen:
        return Seen(*map(whole, zip(*(self._see(self.extractor.variables, x) for x in batches))))


def whole(batches: Sequence[Array]) -> np.ndarray:
    """Batches as one, with the parts of every host."""
    return np.concatenate([np.asarray(process_allgather(x, tiled=True)) for x in batches])


def held_out(batches: Iterator[Batch], count: int) -> list[Array]:
    """The images of so many batches."""
    return [next(batches)["image"] for _ in range(count)]
