"""StyleGAN's measures of entanglement: perceptual path length and linear separability, in Z and W (arXiv:1812.04948)."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jgen.arrays import shard_like
from jgen.config import DataConfig
from jgen.data import glyphs
from jgen.metrics import linear_separability, paths
from jgen.recipes.evaluation.observer import Observer, held_out, to_host
from jgen.train.stage import Evaluate
from jgen.types import Array, Batch, Extra, Key, Params, PyTree

Mapping = Callable[[Params, Array], Array]
"""(params, z [B, z_dim]) -> w."""
Synthesize = Callable[[Params, Extra, Array, Array], Array]
"""(params, extra, w, one key per image [B]) -> images in [-1, 1]."""

Space = Literal["z", "w"]
Sampling = Literal["full", "end"]
SPACES: tuple[Space, ...] = ("z", "w")
SAMPLINGS: tuple[Sampling, ...] = ("full", "end")
"""Where along a path the distances are taken: anywhere, or at its beginning."""

MEDIAN_SIZE = 0.169
"""The median of the size that `glyphs.measured` gives over the set."""


def factors(images: np.ndarray) -> np.ndarray:
    """Logits [N, 6] of attributes of glyphs: white ground, black ground, brighter than the ground, right, low, large."""
    found = glyphs.measured(images)
    ground = found["ground"]
    return np.stack(
        [ground - 0.5, -0.5 - ground, found["contrast"], found["right"], found["down"], found["size"] - MEDIAN_SIZE], 1
    )


def classes(observer: Observer, images: np.ndarray) -> np.ndarray:
    """Logits [N, classes] of each class against the rest."""
    return against_the_rest(observer.observe([jnp.asarray(images[i : i + 64]) for i in range(0, len(images), 64)]).logits)


def against_the_rest(logits: np.ndarray) -> np.ndarray:
    """log(p / (1 - p)) of the probabilities p that the softmax of logits [N, classes] gives.

    In memory of O(N classes): of a thousand classes a table of all pairs would not fit.
    """
    whole = np.logaddexp.reduce(logits, -1, keepdims=True)
    likeliest = np.arange(logits.shape[-1])[None] == np.argmax(logits, -1)[:, None]
    without = np.logaddexp.reduce(np.where(likeliest, -np.inf, logits), -1, keepdims=True)
    rest = whole + np.log1p(-np.exp(np.where(likeliest, -np.inf, logits - whole)))  # p is at most 1/2 here
    return logits - np.where(likeliest, without, rest)


def entanglement(data: DataConfig, z_dim: int, mapping: Mapping, synthesize: Synthesize) -> Evaluate:
    """The evaluation of a style-based generator: path lengths and separability in Z and W.

    Distances are of the features of the classifier that ships with jgen, so no published figure is comparable with them.
    The attributes to separate are the factors of glyphs, or else the classes of a set that has a classifier of its own.
    """

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        observer, (like,) = Observer(data.name), held_out(batches, 1)
        found = path_lengths(observer, z_dim, mapping, synthesize, params, extra, key, like, 4 * count)
        if not observer.knows_classes:
            return found
        z, w, images = samples(z_dim, mapping, synthesize, params, extra, key, like, 16 * count)
        logits = factors(images) if data.name == "glyphs" else classes(observer, images)
        result = linear_separability.separability({"z": z, "w": w}, logits, len(z) // 2, dual="auto")
        return found | {f"separability in {k.upper()} (1 is perfect)": v for k, v in result.scores.items()}

    return evaluate


def path_lengths(
    observer: Observer, z_dim: int, mapping: Mapping, synthesize: Synthesize,
    params: Params, extra: Extra, key: Key, like: Array, count: int,
) -> dict[str, float]:  # fmt: skip
    """The perceptual path length in Z and W, full and at its end, of `count` batches of as many paths as `like` has images."""

    def distances(space: Space, sampling: Sampling, params: Params, variables: PyTree, key: Key, like: Array) -> Array:
        keys = jax.random.split(key, 4)
        noise_keys = jax.random.split(keys[3], len(like))  # the same noise at both ends
        return paths.path_distances(
            lambda z: mapping(params, z), lambda w: synthesize(params, extra, w, noise_keys),
            lambda x: observer.features_and_logits(variables, x)[0],
            _latents(keys[0], z_dim, like), _latents(keys[1], z_dim, like), jax.random.uniform(keys[2], (len(like),)),
            space=space, sampling=sampling, epsilon=1e-2,
        )  # fmt: skip

    found = {}
    for space, sampling in itertools.product(SPACES, SAMPLINGS):
        run = jax.jit(functools.partial(distances, space, sampling))
        rows = [run(params, observer.extractor.variables, jax.random.fold_in(key, i), like) for i in range(count)]
        found[f"path length in {space.upper()}, {sampling}"] = paths.path_length(np.concatenate([*map(to_host, rows)])).mean
    return found


def samples(
    z_dim: int, mapping: Mapping, synthesize: Synthesize, params: Params, extra: Extra, key: Key, like: Array, count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(z, w, images) of `count` batches of as many samples as `like` has images, on the host."""

    @jax.jit
    def draw(params: Params, key: Key, like: Array) -> tuple[Array, Array, Array]:
        z = _latents(key, z_dim, like)
        w = mapping(params, z)
        return z, w, synthesize(params, extra, w, jax.random.split(key, len(like)))

    parts = [tuple(map(to_host, draw(params, jax.random.fold_in(key, 1000 + i), like))) for i in range(count)]
    z, w, images = (np.concatenate(x) for x in zip(*parts))
    return z, w, images


def _latents(key: Key, z_dim: int, like: Array) -> Array:
    return shard_like(jax.random.normal(key, (len(like), z_dim)), like)
