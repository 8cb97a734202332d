"""Features of a set of images, streamed over the devices: their moments, and the features where a metric needs them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh

from jgen.errors import UserError
from jgen.metrics import frechet
from jgen.metrics.extract import Extractor
from jgen.progress import tracked
from jgen.sharding import batch_sharding, replicated
from jgen.types import Array

OF_FEATURES = {"kid", "pr", "dc", "auth"}
"""Metrics of every image's features, which moments do not hold."""
OF_CLASSES = {"is", "modes"}
"""Metrics of the samples' classes alone."""


@dataclass(frozen=True)
class Collected:
    """Statistics of a set: moments always; features and logits where a metric needs them."""

    moments: frechet.Moments
    features: np.ndarray | None
    logits: np.ndarray | None

    @property
    def num(self) -> int:
        return int(self.moments.count)


def collect(
    batches: Iterable[Array | np.ndarray],
    extractor: Extractor,
    mesh: Mesh,
    num: int,
    metrics: Sequence[str],
    title: str = "features",
) -> Collected:
    """Runs `num` images through the extractor, batch by batch: uint8, or float in [-1, 1] which is rounded to levels.

    Every batch must have the same number of rows, divisible by the devices; rows beyond `num` are left out. Features
    are fetched a batch behind the devices, and only where a metric needs more than moments. Raises UserError where
    features are not finite.
    """
    keep = set(metrics) & OF_FEATURES
    logits_too = bool(set(metrics) & OF_CLASSES)
    run, moments, rows = _runner(extractor, mesh, bool(keep), logits_too), None, []
    pending: Array | None = None
    seen = width = 0

    for images in tracked(batches, num, title):
        count = min(num - seen, len(images))
        weights = np.arange(len(images)) < count
        if moments is None:
            shape = jax.ShapeDtypeStruct(images.shape, jnp.float32)
            dim, classes = jax.eval_shape(extractor.apply, extractor.variables, shape)
            if logits_too and classes is None:
                raise UserError(f"metrics={next(m for m in metrics if m in OF_CLASSES)}: {extractor.name} has no classes")
            width = dim.shape[1] if keep else 0
            moments = jax.device_put(frechet.no_moments(dim.shape[1]), replicated(mesh))
        moments, kept = run(extractor.variables, moments, _spread(images, mesh), weights)
        if jax.default_backend() == "cpu":
            # Or the next batch's sampler starts beside it: with two cores, the collectives of two programs can hold both
            # threads and wait forever, each for the other device.
            jax.block_until_ready(moments)
        if pending is not None:
            rows.append(np.asarray(pending))
        pending, seen = kept, seen + count
    if moments is None or seen < num:
        raise UserError(f"{title}: {seen} images, {num} were asked for")
    if pending is not None:
        rows.append(np.asarray(pending))
    if not (np.isfinite(moments.mean).all() and np.isfinite(moments.scatter).all()):
        raise UserError(f"{title}: features of {extractor.name} hold NaN or infinity; are the images finite?")
    joined = np.concatenate(rows)[:num] if rows else None
    features = joined[:, :width] if joined is not None and keep else None
    return Collected(moments, features, joined[:, width:] if joined is not None and logits_too else None)


def _runner(extractor: Extractor, mesh: Mesh, features_too: bool, logits_too: bool) -> Callable[..., Any]:
    """(variables, moments, images, weights) -> (moments, what is kept of every image [B, K], or None)."""

    def run(variables: Any, moments: frechet.Moments, images: Array, weights: Array) -> Any:
        x = lax.with_sharding_constraint(images, batch_sharding(mesh)).astype(jnp.float32)
        if jnp.issubdtype(images.dtype, jnp.floating):
            # NaN stays NaN through clip and round, and is found in the features.
            x = jnp.clip(jnp.round((x + 1) * 127.5), 0, 255)
        with jax.default_matmul_precision("highest"):  # or a score would depend on the accelerator
            features, logits = extractor.apply(variables, x)
        found = features if logits is None or not logits_too else jnp.concatenate([features, logits], 1)
        # The one collective of the program; all that follows is done on every device alike.
        found = lax.with_sharding_constraint(found, replicated(mesh))
        moments = frechet.add(moments, found[:, : features.shape[1]], weights)
        kept = found if features_too else found[:, features.shape[1] :]
        return moments, kept if kept.shape[1] else None

    return jax.jit(run, donate_argnums=1, out_shardings=replicated(mesh))


def _spread(images: Array | np.ndarray, mesh: Mesh) -> Array:
    if isinstance(images, jax.Array):
        return images
    return jax.make_array_from_callback(images.shape, batch_sharding(mesh), lambda rows: images[rows])
