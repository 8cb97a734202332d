"""CutMix of reals and fakes for a discriminator that judges pixels (Schönfeld et al. 2020, arXiv:2002.12655, section 3.2).

A map [B, H, W] is 1 where a mixed image is real. Logits of pixels are [B, H, W]. Draws are arguments.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen.types import Array, Key


class Draws(NamedTuple):
    """The draws of a batch's maps, each [B]."""

    share: Array
    """Uniform in [0, 1): the part of the image outside of the box, where the box is not cut off."""
    row: Array
    """int32: the box's middle, in pixels,"""
    column: Array
    """and its column."""
    flip: Array
    """Uniform in [0, 1): above a half the box is what is real, else what is fake."""


def draw(key: Key, images: Array) -> Draws:
    """Draws for images [B, H, W, C]."""
    keys, (batch, height, width) = jax.random.split(key, 4), images.shape[:3]
    row, column = (jax.random.randint(k, (batch,), 0, n) for k, n in zip(keys[:2], (height, width)))
    share, flip = (jax.random.uniform(k, (batch,)) for k in keys[2:])
    return Draws(share, row, column, flip)


def boxes(draws: Draws, height: int, width: int) -> Array:
    """Maps [B, height, width]: 0 inside a box whose sides are root(1 - share) of the image's, cut off at the edges."""
    root = jnp.sqrt(1 - draws.share)

    def inside(middle: Array, size: int) -> Array:
        half, at = jnp.floor(size * root) // 2, jnp.arange(size)[None]
        return (at >= (middle - half)[:, None]) & (at < (middle + half)[:, None])

    box = inside(draws.row, height)[:, :, None] & inside(draws.column, width)[:, None]
    return (box == (draws.flip > 0.5)[:, None, None]).astype(draws.share.dtype)


def mix(maps: Array, real: Array, fake: Array) -> Array:
    """Reals where the maps are 1, else fakes: of images [B, H, W, C], or of their pixels' logits [B, H, W]."""
    maps = maps[..., None] if real.ndim == 4 else maps
    return maps * real + (1 - maps) * fake


def mixed_loss(pixels: Array, image: Array, maps: Array) -> tuple[Array, Array]:
    """(loss of the pixels' logits, loss of the image's logits [B]) of mixed images: pixels as the maps say, images as fakes."""
    of_pixels = jnp.mean(optax.sigmoid_binary_cross_entropy(pixels, maps))
    return of_pixels, jnp.mean(jax.nn.softplus(image))


def consistency(mixed: Array, real: Array, fake: Array, maps: Array) -> Array:
    """The mean squared difference of a mixed image's pixel logits and the mixed logits of its parts; all have gradients."""
    return jnp.mean((mixed - mix(maps, real, fake)) ** 2)
