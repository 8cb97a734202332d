"""Instances of a set for IC-GAN (Casanova et al. 2021, arXiv:2109.05070): their features, neighbours, and those to keep.

An instance is an image, described by a frozen network's features of norm 1. Its k nearest neighbours are without itself.
"""

import functools
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config import DataConfig
from jgen.config.biggan import InstanceConfig
from jgen.data.fingerprint import fingerprint
from jgen.data.neighbours import Neighbours
from jgen.data.source import Source, good_example
from jgen.errors import UserError
from jgen.files import cache_folder, replacing
from jgen.metrics.extract import DAMAGED, Extractor, open_extractor
from jgen.metrics.neighbours import nearest
from jgen.types import Array, PyTree
from jgen.untrusted import read_npz

AT_ONCE = 128
"""Images in a pass of the frozen network."""
ROUNDS = 20
"""Rounds of k-means."""


class InstanceNetwork(NamedTuple):
    """The frozen network whose features describe instances."""

    extractor: Extractor
    size: int
    """Numbers of a feature vector, D."""


@functools.lru_cache(4)
def instance_network(name: str, data: DataConfig) -> InstanceNetwork:
    """The network of a name, as `jgen.metrics.extract.open_extractor` opens it, for images of a (resolved) set."""
    extractor = open_extractor(name, data.name)
    image = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
    return InstanceNetwork(extractor, jax.eval_shape(extractor.apply, extractor.variables, image)[0].shape[-1])


@functools.lru_cache(4)
def _compiled(extractor: Extractor) -> Callable[..., Array]:
    def unit(variables: PyTree, pixels: Array) -> Array:
        features = extractor.apply(variables, pixels)[0]
        return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)

    return jax.jit(unit)


def features_of(extractor: Extractor, source: Source, mirrored: bool = False) -> np.ndarray:
    """float32 [N, D]: a network's features of a set's images, each of norm 1; of the images mirrored left to right."""
    return np.concatenate([_features(extractor, images, mirrored) for images in _images(source)])


def _features(extractor: Extractor, images: np.ndarray, mirrored: bool) -> np.ndarray:
    levels = images.astype(np.float32) if images.dtype == np.uint8 else (images + 1) * np.float32(127.5)
    levels = levels[:, :, ::-1] if mirrored else levels
    whole = np.pad(levels, ((0, AT_ONCE - len(levels)), (0, 0), (0, 0), (0, 0)), mode="edge")  # one program for all passes
    return np.asarray(_compiled(extractor)(extractor.variables, whole))[: len(images)]


def _images(source: Source) -> Iterator[np.ndarray]:
    for first in range(0, len(source), AT_ONCE):
        yield np.stack([good_example(source, i)[0]["image"] for i in range(first, min(first + AT_ONCE, len(source)))])


def central(features: np.ndarray, count: int) -> np.ndarray:
    """Places [count] of the rows of features [N, D] that are nearest to the centres of k-means, as the authors choose them."""
    rows = jnp.asarray(features)

    @jax.jit
    def assigned(centres: Array, block: Array) -> Array:
        return jnp.argmin(jnp.sum(centres**2, -1)[None] - 2 * block @ centres.T, -1)

    @jax.jit
    def closest(centres: Array) -> Array:
        near = lambda centre: jnp.argmin(jnp.sum(rows**2, -1) - 2 * rows @ centre)  # noqa: E731
        return jax.lax.map(near, centres)

    if count == len(features):
        return np.arange(count)
    centres = features[np.random.default_rng(0).choice(len(features), count, replace=False)]
    for _ in range(ROUNDS):
        blocks = range(0, len(features), 4096)
        nearest_centre = np.concatenate([assigned(jnp.asarray(centres), rows[i : i + 4096]) for i in blocks])
        sizes = np.bincount(nearest_centre, minlength=count)
        order = np.argsort(nearest_centre, kind="stable")
        filled = np.flatnonzero(sizes)
        sums = np.add.reduceat(features[order], (np.cumsum(sizes) - sizes)[filled], axis=0)
        centres = centres.copy()
        centres[filled] = sums / sizes[filled, None]
    return np.asarray(closest(jnp.asarray(centres)))


def neighbourhoods(config: InstanceConfig, network: InstanceNetwork, flip: bool, seed: int, source: Source) -> Neighbours:
    """A set's examples for the training; its features and neighbours are worked out once, and kept in the cache.

    Raises UserError for a set that has no end, or too few images for the neighbours or the instances to keep.
    """
    if source.endless:
        raise UserError("data.limit=0: this set makes images without end; say how many of them are instances")
    if config.instances > len(source):
        raise UserError(f"instances={config.instances}: the set has only {len(source)} images")
    if config.neighbours >= len(source):
        raise UserError(f"neighbours={config.neighbours}: must be less than the {len(source)} images of the set")
    found = _cached(config, network.extractor, flip, source)
    chosen = found["chosen"]
    inputs = {"instance_features": found["features"][0][chosen]}
    if source.classes:
        labels = np.array([good_example(source, int(i))[0]["label"] for i in found["neighbours"][chosen].ravel()], np.int32)
        inputs["instance_label"] = labels.reshape(len(chosen), -1)
    return Neighbours(source, found["features"], found["neighbours"], seed, inputs)


def _cached(config: InstanceConfig, extractor: Extractor, flip: bool, source: Source) -> dict[str, np.ndarray]:
    folder = cache_folder("instances")
    facts = f"{fingerprint(source, len(source))} {extractor.sha256} {config.neighbours} {config.instances} {flip}"
    path = folder / f"{hashlib.sha256(facts.encode()).hexdigest()}.npz" if folder else None
    if path is not None and path.is_file():
        try:
            return read_npz(path, kinds="fi")
        except DAMAGED:
            pass  # it is worked out again
    features = np.stack([features_of(extractor, source, mirrored) for mirrored in ([False, True] if flip else [False])])
    found = {
        "features": features,
        "neighbours": nearest(features[0], config.neighbours),
        "chosen": central(features[0], config.instances),
    }
    _keep(path, found)
    return found


def _keep(path: Path | None, arrays: dict[str, Any]) -> None:
    if path is None:
        return
    try:
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **arrays)
    except OSError:
        pass  # a cache that can't be written costs time only
