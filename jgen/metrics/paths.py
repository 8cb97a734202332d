"""Perceptual path length: how much an image changes as its latent moves a little (Karras et al. 2019, section 4.1)."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like, great_circle
from jgen.errors import UserError
from jgen.types import Array


class PathLength(NamedTuple):
    mean: float
    """Over the distances from low to high."""
    low: float
    """The 1st percentile, rounded down to a distance that occurs."""
    high: float
    """The 99th percentile, rounded up to one."""
    kept: int
    """Distances between them, both included."""


def slerp(a: Array, b: Array, t: Array) -> Array:
    """The point a share t [B] of the way along the great circle from a to b [B, D]; all of unit length."""
    u, v, whole = great_circle(a, b)
    angle = (t * whole)[:, None]
    return u * jnp.cos(angle) + v * jnp.sin(angle)


def lerp(a: Array, b: Array, t: Array) -> Array:
    """The point a share t [B] of the way along the line from a to b [B, ...]."""
    return a + (b - a) * expand_dims_like(t, a)


def path_distances(
    mapping: Callable[[Array], Array],
    synthesis: Callable[[Array], Array],
    features: Callable[[Array], Array],
    z0: Array,
    z1: Array,
    t: Array,
    *,
    space: Literal["z", "w"] = "w",
    sampling: Literal["full", "end"] = "full",
    epsilon: float = 1e-4,
) -> Array:
    """|features(image at t + epsilon) - features(image at t)|^2 / epsilon^2 of every path [B].

    z0, z1: the latents [B, D] at the ends of a path; t: uniform draws in [0, 1) [B]. mapping: z -> w; synthesis: w ->
    images in [-1, 1]; features: images in 0..255 -> [B, F]. space: "z" walks by slerp and maps both points, which
    puts them on the unit sphere as the authors' code does; "w" maps the ends and walks by lerp. "end" takes t = 0.
    In float32 an epsilon below about 1e-2 drowns in rounding unless the features are computed in float64.
    """
    if space not in ("z", "w") or sampling not in ("full", "end"):
        raise UserError(f"space={space}, sampling={sampling}: must be z or w, full or end")
    t = jnp.zeros_like(t) if sampling == "end" else t
    if space == "w":
        w0, w1 = mapping(z0), mapping(z1)
        points = [lerp(w0, w1, t), lerp(w0, w1, t + epsilon)]
    else:
        points = [mapping(slerp(z0, z1, t)), mapping(slerp(z0, z1, t + epsilon))]
    before, after = (features((synthesis(w) + 1) * 127.5) for w in points)
    return jnp.sum(jnp.square(before - after), -1) / epsilon**2


def path_length(distances: np.ndarray) -> PathLength:
    """The mean of distances [N] within their 1st and 99th percentile. Raises UserError where there are none."""
    distances = np.asarray(distances)
    if distances.ndim != 1 or not len(distances) or not np.isfinite(distances).all():
        raise UserError(f"distances of shape {distances.shape}: must be a list of finite numbers, at least one")
    low = np.percentile(distances, 1, method="lower")
    high = np.percentile(distances, 99, method="higher")
    kept = distances[(distances >= low) & (distances <= high)]
    return PathLength(float(kept.mean()), float(low), float(high), len(kept))
