"""What the GAN experiments share: images at the sides a network can have, and the evaluation of modes and of entanglement."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._observer import Observer, held_out, whole
from jgen.arrays import spread
from jgen.config import DataConfig
from jgen.data import classes_of, glyphs
from jgen.errors import UserError
from jgen.metrics import linear_separability, paths
from jgen.metrics.neighbours import manifold
from jgen.types import Array

COUNTED = 4096
"""Least number of samples that the classes are counted in: a share of 3 % is then known to 0.3 %."""
MEDIAN_SIZE = 0.169
"""Of `glyphs.measured` over the set."""


class Shape(NamedTuple):
    """What a network has to be built for."""

    side: int
    """The least power of 2 that holds the images."""
    channels: int
    classes: int
    """0 for an unconditional one."""


def square(data: DataConfig) -> int:
    """The side of the images. Raises UserError for images that are not square."""
    height, width, _ = data.shape
    if height != width:
        raise UserError(f"data.name={data.name}: images of {height}x{width}; this network makes square ones")
    return height


def shape_of(data: DataConfig, conditional: bool) -> Shape:
    """Of a network that works in powers of 2. Raises UserError for images that are not square, or have no labels to give."""
    return Shape(1 << (square(data) - 1).bit_length(), data.shape[-1], classes_of(data, conditional))


def pad(images: Array, side: int) -> Array:
    """Images [B, H, W, C] in the middle of side x side ones, black (-1) around."""
    rim = side - images.shape[1]
    around = (rim // 2, rim - rim // 2)
    return jnp.pad(images, ((0, 0), around, around, (0, 0)), constant_values=-1.0) if rim else images


def cropped(images: Array, side: int) -> Array:
    """The middle side x side pixels: the inverse of `pad`."""
    at = (images.shape[1] - side) // 2
    return images[:, at : at + side, at : at + side]


def modes(data: DataConfig, sample: Any, options: Any) -> Any:
    """The evaluation: the share of every class among samples, as the shipped classifier sees them (a class below 3 % of ten
    is a lost mode), and precision (fidelity) and recall (diversity) against as many held-out images."""

    def evaluate(params, extra, key, batches, count):
        observer, images = Observer(data.name), held_out(batches, count)
        draw = jax.jit(lambda params, extra, keys: sample(params, extra, keys, options))
        real = observer.see(images)
        like = images * -(-COUNTED // len(real.features))
        fake = observer.samples(lambda keys: draw(params, extra, keys), key, like)
        shares = np.bincount(fake.logits.argmax(-1), minlength=data.num_classes) / len(fake.logits)
        scores = manifold(real.features, fake.features[: len(real.features)], 3)
        found = {"classes found": float((shares > 0).sum()), "least share of a class": shares.min()}
        found |= {f"share of class {k}": share for k, share in enumerate(shares[:10])}
        return {**found, "precision": scores.precision, "recall": scores.recall}

    return evaluate


def factors(images: np.ndarray) -> np.ndarray:
    """Logits [N, 6] of attributes of glyphs: white ground, black ground, brighter than the ground, right, low, large."""
    seen = glyphs.measured(images)
    ground = seen["ground"]
    return np.stack([ground - 0.5, -0.5 - ground, seen["contrast"], seen["right"], seen["down"], seen["size"] - MEDIAN_SIZE], 1)


def classes(observer: Observer, images: np.ndarray) -> np.ndarray:
    """Logits [N, classes] of each class against the rest."""
    batches = [jnp.asarray(images[i : i + 256]) for i in range(0, len(images), 256)]
    logits = observer.see(batches).logits
    others = np.where(np.eye(logits.shape[-1], dtype=bool), -np.inf, logits[:, None])
    return logits - np.logaddexp.reduce(others, -1)


def entanglement(data: DataConfig, z_dim: int, mapping: Any, synthesize: Any) -> Any:
    """The evaluation of StyleGAN's own measures: perceptual path length in Z and W (from features of the shipped classifier, so
    comparable with no published figure), and the linear separability in both: of the factors of glyphs, else of the
    classifier's classes.

    mapping(params, z) -> w; synthesize(params, extra, w, keys) -> images in [-1, 1].
    """

    def evaluate(params, extra, key, batches, count):
        observer = Observer(data.name)
        variables, (like,) = observer.extractor.variables, held_out(batches, 1)

        def latents(key, like):
            return spread(jax.random.normal(key, (len(like), z_dim)), like)

        def distances(params, variables, key, like, space, sampling):
            keys = jax.random.split(key, 4)
            planes = jax.random.split(keys[3], len(like))  # the same noise at both ends
            return paths.path_distances(
                lambda z: mapping(params, z), lambda w: synthesize(params, extra, w, planes),
                lambda x: observer.look(variables, x)[0],
                latents(keys[0], like), latents(keys[1], like), jax.random.uniform(keys[2], (len(like),)),
                space=space, sampling=sampling, epsilon=1e-2,
            )  # fmt: skip

        found = {}
        for space in ("z", "w"):
            for sampling in ("full", "end"):
                run = jax.jit(lambda p, v, k, x, s=space, m=sampling: distances(p, v, k, x, s, m))
                rows = [run(params, variables, jax.random.fold_in(key, i), like) for i in range(4 * count)]
                found[f"path length in {space.upper()}, {sampling}"] = paths.path_length(
                    np.concatenate([*map(whole, rows)])
                ).mean

        @jax.jit
        def some(params, key, like):
            z = latents(key, like)
            w = mapping(params, z)
            return z, w, synthesize(params, extra, w, jax.random.split(key, len(like)))

        parts = [tuple(map(whole, some(params, jax.random.fold_in(key, 1000 + i), like))) for i in range(16 * count)]
        z, w, images = (np.concatenate(x) for x in zip(*parts))
        logits = factors(images) if data.name == "glyphs" else classes(observer, images)
        measured = linear_separability.separability({"z": z, "w": w}, logits, len(z) // 2, dual="auto")
        return found | {f"separability in {k.upper()} (1 is perfect)": v for k, v in measured.scores.items()}

    return evaluate
