"""The augmentation of EDM's training images (Karras et al. 2022, arXiv:2206.00364, appendix F.2).

Flips, then one resampling that scales, turns, stretches and shifts, each of them on in a share p of the images. The network
takes the nine numbers of `augment_labels` beside the noise level. Zeros stand for an image that was left alone, and are what it
is given in sampling: so the images that it draws are not augmented.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.nn.warp import composed, rotation, scaling, shift, warp
from jgen.types import Array, Key

LABELS = 9
SCALE = 0.2
"""Standard deviation of log2 of the scale, and of the stretch."""
SHIFT = 0.125
"""Deviation of the shift, of the image's size."""


class Amounts(NamedTuple):
    """How much of each transform every image gets, float32 [B]; 0 leaves it alone."""

    mirror: Array
    """0 or 1: left and right change places; in half of all images, whatever p."""
    upside_down: Array
    """0 or 1."""
    scale: Array
    """Standard normal: larger by 2^(0.2 scale)."""
    angle: Array
    """Radians anticlockwise, as one looks at the image."""
    stretch: Array
    """Standard normal: longer by 2^(0.2 stretch) along `axis` and shorter by as much across it."""
    axis: Array
    """Radians anticlockwise from the horizontal; 0 for half of the images."""
    right: Array
    """Standard normal: in eighths of the width"""
    down: Array
    """and of the height."""


def draw(key: Key, batch: int, p: float) -> Amounts:
    """The amounts for so many images; p in 0..1."""
    gate_key, uniform_key, normal_key = jax.random.split(key, 3)
    gates, uniform = jax.random.uniform(gate_key, (6, batch)), jax.random.uniform(uniform_key, (4, batch))
    normal = jax.random.normal(normal_key, (4, batch))
    on = jnp.where(gates < p, 1.0, 0.0)
    coin = jnp.round(uniform[:2])  # 0 or 1
    angle, axis = (2 * uniform[2:4] - 1) * np.pi
    return Amounts(
        mirror=coin[0],
        upside_down=on[0] * coin[1],
        scale=on[1] * normal[0],
        angle=on[2] * angle,
        stretch=on[3] * normal[1],
        axis=jnp.where(gates[4] < 0.5, axis, 0.0),
        right=on[5] * normal[2],
        down=on[5] * normal[3],
    )


def augment_labels(a: Amounts) -> Array:
    """The labels that the network takes: [B, 9], all zeros for an image that was left alone."""
    turned = [jnp.cos(a.angle) - 1, jnp.sin(a.angle)]
    stretched = [a.stretch * jnp.cos(a.axis), a.stretch * jnp.sin(a.axis)]
    return jnp.stack([a.mirror, a.upside_down, a.scale, *turned, *stretched, a.right, a.down], -1)


def augment(images: Array, a: Amounts) -> Array:
    """[B, H, W, C] -> the same shape. All images are resampled, those left alone too, as the authors do."""
    for amount, axis in ((a.mirror, 2), (a.upside_down, 1)):
        images = jnp.where(expand_dims_like(amount, images) == 1, jnp.flip(images, axis), images)
    size = np.array(images.shape[2:0:-1])

    def inverse(a: Amounts) -> Array:
        return composed(
            scaling(2.0 ** (-SCALE * a.scale), 2.0 ** (-SCALE * a.scale)),
            rotation(a.angle),
            rotation(-a.axis),
            scaling(2.0 ** (-SCALE * a.stretch), 2.0 ** (SCALE * a.stretch)),
            rotation(a.axis),
            shift(SHIFT * jnp.stack([a.right, a.down]) * size),
        )

    return warp(images, jax.vmap(inverse)(a).astype(images.dtype))


def augmented(key: Key, images: Array, p: float) -> tuple[Array, Array]:
    """(images, their augmentation labels), of fresh draws; p in 0..1."""
    amounts = draw(key, len(images), p)
    return augment(images, amounts), augment_labels(amounts)
