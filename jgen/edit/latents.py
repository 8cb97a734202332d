"""Ways through a latent space: lines, great circles, one coordinate at a time, a map of two."""

import jax
import jax.numpy as jnp

from jgen.arrays import great_circle
from jgen.errors import UserError
from jgen.types import Array


def _check_ends(a: Array, b: Array, t: Array) -> None:
    """Raises UserError unless a and b are two points [D], and t is shares [T]."""
    shapes = [list(jnp.shape(x)) for x in (a, b, t)]
    if shapes[0] != shapes[1] or [len(shape) for shape in shapes] != [1, 1, 1]:
        raise UserError(f"a {shapes[0]}, b {shapes[1]}, t {shapes[2]}: must be two points [D] and shares [T]; flatten others")


def lerp(a: Array, b: Array, t: Array) -> Array:
    """The points a share t [T] of the way along the line from a to b [D] -> [T, D]. Raises UserError for other shapes."""
    _check_ends(a, b, t)
    return a[None] + t[:, None] * (b - a)[None]


def slerp(a: Array, b: Array, t: Array) -> Array:
    """The points a share t [T] along the arc from a to b [D] -> [T, D]; lengths change evenly from one to the other.

    Points of a Gaussian in many dimensions lie near a sphere, which an arc keeps to and a line leaves (Shoemake 1985;
    White 2016, arXiv:1609.04468). Between opposite points there are many arcs: one is taken, always the same. From or to
    zero, which has no direction, it is the line. Raises UserError for other shapes.
    """
    _check_ends(a, b, t)
    size_a, size_b = jnp.linalg.norm(a), jnp.linalg.norm(b)
    start, aside, angle = great_circle(a, b)
    direction = jnp.cos(t * angle)[:, None] * start[None] + jnp.sin(t * angle)[:, None] * aside[None]
    along = direction * (size_a + t * (size_b - size_a))[:, None]
    return jnp.where((size_a == 0) | (size_b == 0), lerp(a, b, t), along)


def slerp_sines(a: Array, b: Array, t: Array) -> Array:
    """The points a share t [T] of the way from a to b [D], in the form of DDIM's code -> [T, D].

    The angle is that between the directions, the weights are of the points as they are. On a sphere it equals `slerp`.
    Parallel points have no arc, and are not guarded. Raises UserError for other shapes.
    """
    _check_ends(a, b, t)
    cosine = jnp.sum(a * b) / (jnp.linalg.norm(a) * jnp.linalg.norm(b))
    angle = jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
    weights = jnp.sin((1 - t) * angle), jnp.sin(t * angle)
    return (weights[0][:, None] * a[None] + weights[1][:, None] * b[None]) / jnp.sin(angle)


def traversal(z: Array, dims: int, steps: int, reach: float = 3.0) -> Array:
    """z [D] with one coordinate at a time set to -reach .. reach: [dims * steps, D], a row of `steps` for each."""
    if not 1 <= dims <= z.shape[0]:
        raise UserError(f"dims={dims}: must be from 1 to {z.shape[0]}, the size of the latent")
    if steps < 1:
        raise UserError(f"steps={steps}: must be at least 1")
    values = jnp.linspace(-reach, reach, steps)
    rows = jnp.broadcast_to(z[None, None], (dims, steps, z.shape[0]))
    chosen = jnp.arange(z.shape[0])[None, None] == jnp.arange(dims)[:, None, None]
    return jnp.where(chosen, values[None, :, None], rows).reshape(dims * steps, -1)


def gaussian_map(size: int, dims: int = 2) -> Array:
    """[size * size, dims]: the first two coordinates at even steps of a Gaussian's probability, the others 0.

    The picture of Kingma & Welling 2013 (arXiv:1312.6114, figure 4): each cell holds the same share of the prior.
    """
    if dims < 2:
        raise UserError(f"dims={dims}: a map needs a latent of at least 2")
    ends = jax.scipy.stats.norm.ppf((jnp.arange(size) + 0.5) / size)
    y, x = jnp.meshgrid(ends[::-1], ends, indexing="ij")
    flat = jnp.stack([x.reshape(-1), y.reshape(-1)], -1)
    return jnp.pad(flat, ((0, 0), (0, dims - 2)))


def closed_walk(points: Array, t: Array) -> Array:
    """points [K, ...] joined to a smooth ring at times t [T] in 0..1, one round: Catmull-Rom splines -> [T, ...].

    Point k is met at k / K, with a speed of half the way between its neighbours; at 1 the ring is back at the first point.
    """
    count = len(points)
    place = jnp.mod(t, 1.0) * count
    first = jnp.floor(place)
    u = (place - first).reshape(-1, *[1] * (points.ndim - 1))
    a, b, c, d = (points[(first.astype(jnp.int32) + i) % count] for i in (-1, 0, 1, 2))
    bend = 2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)
    return b + u / 2 * (c - a + u * bend)
