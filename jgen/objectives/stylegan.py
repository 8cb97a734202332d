"""The arithmetic of style-based GANs: styles and their mixing, and the centre of truncation.

Karras et al. 2019 (arXiv:1812.04948), 2020 (arXiv:1912.04958, 2006.06676). Mapping and synthesis are given as functions
(`Style`), so all of the family share these. Draws (`Draws`) are arguments, and the losses are in `adversarial` and
`style_losses`.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen.arrays import shard_like
from jgen.models.gan.stylegan2 import mix, repeat
from jgen.types import Array, Key, PyTree


class Style(NamedTuple):
    """A style-based generator as functions of its weights."""

    map: Callable[[PyTree, Array, Array | None], Array]
    """(params of g, z [B, Z], labels [B, classes] or None) -> w [B, D]."""
    synthesize: Callable[[PyTree, Array, Mapping[str, Array]], Array]
    """(params of g, ws [B, num_ws, D], noise planes) -> images."""
    noise: Callable[[Key], Mapping[str, Array]]
    """One key an image -> the planes of every layer."""
    z_dim: int
    num_ws: int
    used_ws: int = 0
    """How many of them a network that still grows uses; 0 for all."""
    mixing: float = 0.9
    """Probability of style mixing."""
    w_decay: float = 0.995
    """Decay of the moving average w_avg."""


class Draws(NamedTuple):
    """The latents of a style-based generator."""

    z: Array
    z2: Array | None
    """The second latents of style mixing; None for no mixing."""
    cutoff: Array | int
    """int []: rows from here on are of z2; num_ws for no mixing."""
    noise: Mapping[str, Array]
    """{layer: planes}."""


def draw(style: Style, key: Key, images: Array, rows: int | None = None) -> Draws:
    """The latents and noise of as many images, or of `rows`, and their mixing: one draw for all, as in the authors' code."""
    rows = len(images) if rows is None else rows
    z_key, z2_key, cut_key, mix_key, noise_key = jax.random.split(key, 5)
    cutoff = jax.random.randint(cut_key, (), 1, max(style.used_ws or style.num_ws, 2))
    mixed = jax.random.uniform(mix_key) < style.mixing
    noise = shard_like(style.noise(jax.random.split(noise_key, rows)), images)
    z, z2 = (shard_like(jax.random.normal(k, (rows, style.z_dim)), images) for k in (z_key, z2_key))
    return Draws(z, z2, jnp.where(mixed, cutoff, style.num_ws), noise)


def styles(style: Style, params: PyTree, draws: Draws, label: Array | None, w_avg: Array) -> tuple[Array, Array]:
    """(ws [B, num_ws, D] after mixing, w_avg moved towards the mean of the first latents' w)."""
    w = style.map(params, draws.z, label)
    ws = repeat(w, style.num_ws)
    if draws.z2 is not None:
        ws = mix(ws, repeat(style.map(params, draws.z2, label), style.num_ws), draws.cutoff)
    centre = jax.lax.stop_gradient(jnp.mean(w, 0))
    return ws, centre + style.w_decay * (w_avg - centre)


def fakes(style: Style, params: PyTree, draws: Draws, label: Array | None, w_avg: Array) -> tuple[Array, Array]:
    """(images, w_avg) of given draws."""
    ws, w_avg = styles(style, params, draws, label, w_avg)
    return style.synthesize(params, ws, draws.noise), w_avg
