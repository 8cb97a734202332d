"""The smaller images that super-resolution stages are given, as Ho et al. 2021 (arXiv:2106.15282) augment them."""

import jax
import jax.numpy as jnp

from jgen.types import Array, Key


def shrink(x: Array, side: int) -> Array:
    """Images averaged down to a side that divides theirs."""
    b, height, width, c = x.shape
    return x.reshape(b, side, height // side, side, width // side, c).mean((2, 4))


def with_level(low: Array, level: Array) -> Array:
    """A smaller image [B, h, w, C] with a channel that says how much noise [B] is on it."""
    return jnp.concatenate([low, jnp.broadcast_to(level[:, None, None, None], (*low.shape[:3], 1))], -1)


def blurred(x: Array, sigma: Array) -> Array:
    """Images [B, h, w, C] blurred by Gaussians of these deviations [B] in pixels, as 3x3 filters."""
    beside = jnp.exp(-0.5 / sigma**2)[:, None, None, None]
    for axis in (1, 2):
        ends = [(0, 0)] * 4
        ends[axis] = (1, 1)
        first, last = (jnp.take(jnp.pad(x, ends, mode="edge"), start + jnp.arange(x.shape[axis]), axis) for start in (0, 2))
        x = (x + beside * (first + last)) / (1 + 2 * beside)
    return x


def augmented(key: Key, low: Array, most_augment: float, blur: float) -> Array:
    """A smaller image as a super-resolution stage is trained on it: a share `blur` of them blurred, all noised.

    The noise's deviation is uniform up to most_augment. The blur's is from 0.4 to 0.6 pixels, which the paper found to be best
    (section 4.4).
    """
    keys = jax.random.split(key, 4)
    level = jax.random.uniform(keys[0], low.shape[:1], maxval=most_augment)
    chosen = jax.random.bernoulli(keys[1], float(blur), low.shape[:1])[:, None, None, None]
    sigma = jax.random.uniform(keys[3], low.shape[:1], minval=0.4, maxval=0.6)
    low = jnp.where(chosen, blurred(low, sigma), low)
    return with_level(low + level[:, None, None, None] * jax.random.normal(keys[2], low.shape), level)
