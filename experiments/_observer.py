"""Samples and held-out images as the shipped classifier sees them: what the evaluations of GANs and of guidance go by."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.multihost_utils import process_allgather

from jgen.errors import UserError
from jgen.metrics.extract import SHIPPED, open_extractor
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
            made = jax.jit(_numbered, static_argnums=2, out_shardings=images.sharding)
            yield made(key, first, len(images))
            first += len(images)

    def _together(self, batches: Sequence[Array] | Iterator[Array]) -> Seen:
        # Gathered batch by batch, so that no two programs with collectives run beside each other.
        seen = [tuple(map(whole, self._see(self.extractor.variables, x))) for x in batches]
        return Seen(*map(np.concatenate, zip(*seen)))


def _numbered(key: Key, first: int, count: int) -> Array:
    return jax.vmap(lambda n: jax.random.fold_in(key, n))(first + jnp.arange(count))


def whole(x: Array) -> np.ndarray:
    """An array on the host, with the parts that other hosts hold."""
    return np.asarray(x if x.is_fully_addressable else process_allgather(x, tiled=True))


def has_classifier(data: str) -> bool:
    """Whether a classifier of the set ships with jgen."""
    return f"{data}_cnn" in SHIPPED


def held_out(batches: Iterator[Batch], count: int) -> list[Array]:
    """The images of so many batches."""
    return [next(batches)["image"] for _ in range(count)]
