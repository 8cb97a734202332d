"""Differentiable augmentation of what a discriminator sees, and the augmentations of consistency regularisation.

DiffAugment: Zhao et al. 2020, arXiv:2006.10738; flips and reflected shifts: CR, Zhang et al. 2020, arXiv:1910.12027, and bCR,
Zhao et al. 2020, arXiv:2002.04724. Images are [B, H, W, C] in [-1, 1] and nothing is clipped. Every operation is linear or
affine in the image and takes its random draws, one an image, as arguments; `diffaug` and `consistency` make the draws.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.types import Array, Key

POLICIES = ("color", "translation", "cutout")


def brightness(x: Array, u: Array) -> Array:
    """Adds u - 1/2, for uniform draws u [B] in 0..1."""
    return x + expand_dims_like(u - 0.5, x)


def saturation(x: Array, u: Array) -> Array:
    """Scales what sets a pixel's channels apart from their mean by 2 u, for uniform draws u [B] in 0..1."""
    mean = jnp.mean(x, -1, keepdims=True)
    return mean + (x - mean) * expand_dims_like(2 * u, x)


def contrast(x: Array, u: Array) -> Array:
    """Scales what sets the values of an image apart from their mean by u + 1/2, for uniform draws u [B] in 0..1."""
    mean = jnp.mean(x, (1, 2, 3), keepdims=True)
    return mean + (x - mean) * expand_dims_like(u + 0.5, x)


def _window(padded: Array, rows: Array, cols: Array, shape: tuple[int, ...]) -> Array:
    """The window of `shape` [H, W, C] of each padded image whose corner is at rows [B], cols [B]."""
    return jax.vmap(lambda image, i, j: jax.lax.dynamic_slice(image, (i, j, 0), shape))(padded, rows, cols)


def reach(size: int, ratio: float = 0.125) -> int:
    """The largest shift of `translation` along an axis of `size` pixels."""
    return int(size * ratio + 0.5)


def translation(x: Array, rows: Array, cols: Array, ratio: float = 0.125) -> Array:
    """out[i, j] = x[i + row, j + col], zero from outside; draws [B] are whole, at most `reach` of their axis either way."""
    m, n = reach(x.shape[1], ratio), reach(x.shape[2], ratio)
    return _window(jnp.pad(x, ((0, 0), (m, m), (n, n), (0, 0))), rows + m, cols + n, x.shape[1:])


def _blanked(size: int, at: Array, ratio: float) -> Array:
    """[B, size]: which places of an axis the hole around `at` [B] covers; one that lies outside still covers the edge."""
    hole = int(size * ratio + 0.5)
    first = at - hole // 2
    low, high = jnp.clip(first, 0, size - 1), jnp.clip(first + hole - 1, 0, size - 1)
    place = jnp.arange(size)[None]
    return (place >= low[:, None]) & (place <= high[:, None])


def cutout(x: Array, rows: Array, cols: Array, ratio: float = 0.5) -> Array:
    """Zeroes a rectangle of `ratio` of each side around (row, col): whole draws [B] in 0..H and 0..W."""
    hole = _blanked(x.shape[1], rows, ratio)[:, :, None, None] & _blanked(x.shape[2], cols, ratio)[:, None, :, None]
    return jnp.where(hole, 0, x)


def flip(x: Array, u: Array) -> Array:
    """Left and right exchanged where the uniform draw u [B] is below 1/2."""
    return jnp.where(expand_dims_like(u, x) < 0.5, x[:, :, ::-1], x)


def translation_reflect(x: Array, rows: Array, cols: Array, ratio: float = 0.125) -> Array:
    """`translation` with the image reflected at its edges, and shifts up to int(ratio size)."""
    m, n = int(x.shape[1] * ratio), int(x.shape[2] * ratio)
    return _window(jnp.pad(x, ((0, 0), (m, m), (n, n), (0, 0)), mode="reflect"), rows + m, cols + n, x.shape[1:])


def _whole(key: Key, batch: int, low: int, high: int) -> Array:
    """[B] whole numbers, low..high, both included."""
    return jax.random.randint(key, (batch,), low, high + 1)


def diffaug(key: Key, x: Array, policy: Sequence[str] = POLICIES, hole: float = 0.5) -> Array:
    """DiffAugment of [B, H, W, C]: colour (brightness, saturation, contrast), then translation, then cutout, as `policy` names.

    What is drawn for one operation does not depend on which others are named. hole: side of the cutout as a share of the
    image's, 0.5 in the paper and 0.2 in Projected GAN. Raises UserError for a name that is unknown.
    """
    unknown = sorted(set(policy) - set(POLICIES))
    if isinstance(policy, str) or unknown:
        raise UserError(f"policy={policy}: must be a sequence of {', '.join(POLICIES)}")
    (batch, height, width, _), keys = x.shape, jax.random.split(key, 7)
    if "color" in policy:
        for one, change in zip(keys, (brightness, saturation, contrast)):
            x = change(x, jax.random.uniform(one, (batch,)))
    if "translation" in policy:
        m, n = reach(height), reach(width)
        x = translation(x, _whole(keys[3], batch, -m, m), _whole(keys[4], batch, -n, n))
    if "cutout" in policy:
        # a hole of odd width has a middle pixel, so its last centre is one pixel sooner
        last = [size - int(size * hole + 0.5) % 2 for size in (height, width)]
        x = cutout(x, _whole(keys[5], batch, 0, last[0]), _whole(keys[6], batch, 0, last[1]), hole)
    return x


def consistency(key: Key, x: Array, ratio: float = 0.125) -> Array:
    """The augmentation of CR and bCR: half of the images [B, H, W, C] are flipped, then all are shifted with reflection."""
    keys = jax.random.split(key, 3)
    x = flip(x, jax.random.uniform(keys[0], x.shape[:1]))
    m, n = int(x.shape[1] * ratio), int(x.shape[2] * ratio)
    return translation_reflect(x, _whole(keys[1], len(x), -m, m), _whole(keys[2], len(x), -n, n), ratio)
