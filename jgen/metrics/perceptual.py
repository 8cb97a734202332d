"""How unlike two images look, by features whose squared differences add up: LPIPS, or its form on any network."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp

from jgen.errors import UserError
from jgen.metrics.extract import Extractor, open_extractor
from jgen.metrics.lpips import lpips_network
from jgen.models.perceptual import unit
from jgen.types import Array, PyTree

LPIPS = "lpips:"


class Perceptual(NamedTuple):
    """A network that sees images, and its weights."""

    name: str
    weights: PyTree
    apply: Callable[[PyTree, Array], Array]
    """(weights, images [B, H, W, C] in [-1, 1]) -> [B, F], which may be hundreds of thousands."""
    pooled: Callable[[PyTree, Array], Array]
    """Likewise, a few features of the whole picture, of length 1, for a judge of what it shows."""

    def see(self, images: Array) -> Array:
        """[B, F] of images; the distance of two is the sum of squared differences."""
        return self.apply(self.weights, images)


def open_perceptual(name: str, data_name: str = "") -> Perceptual:
    """The distance of a name: lpips:TRUNK:HEADS is LPIPS of its authors' files; others are extractors of `open_extractor`.

    Of an extractor with maps, which are jgen's own and EfficientNet-Lite0, it is LPIPS's form without learned weights: maps
    whose features have length 1 at each place, the mean over places, summed over layers. Others give their pooled features, of
    length 1. An empty name takes that of the set. Raises UserError as `open_extractor` and `open_lpips` do.
    """
    if not name.startswith(LPIPS):
        return of_extractor(open_extractor(name, data_name))
    trunk, _, heads = name.removeprefix(LPIPS).partition(":")
    if not (trunk and heads):
        raise UserError(f"extractor={name}: must be {LPIPS}TRUNK:HEADS, the files of LPIPS's trunk and of its heads")
    net, variables = lpips_network(trunk, heads)

    def taps(weights: PyTree, images: Array) -> list[Array]:
        found: Any = net.apply(weights, jnp.repeat(images, 3, -1) if images.shape[-1] == 1 else images, method="taps")
        return found

    def apply(weights: PyTree, images: Array) -> Array:
        lin = [jnp.sqrt(jnp.maximum(weights["params"][f"lin{i}"], 0)) for i in range(len(net.heads))]
        return _joined([unit(tap) * w[None, None, None] for tap, w in zip(taps(weights, images), lin)])

    def pooled(weights: PyTree, images: Array) -> Array:
        return unit(jnp.concatenate([jnp.mean(unit(tap), (1, 2)) for tap in taps(weights, images)], -1))

    return Perceptual(name, variables, apply, pooled)


def of_extractor(extractor: Extractor) -> Perceptual:
    """The distance by an extractor's maps, or by its pooled features where it has none."""
    taps = extractor.taps

    def by_maps(weights: PyTree, images: Array) -> Array:
        assert taps is not None
        return _joined([unit(tap) for tap in taps(weights, (images + 1) * 127.5)])

    def pooled(weights: PyTree, images: Array) -> Array:
        return unit(extractor.apply(weights, (images + 1) * 127.5)[0])

    return Perceptual(extractor.name, extractor.variables, pooled if taps is None else by_maps, pooled)


def _joined(maps: list[Array]) -> Array:
    """[B, F]: all maps [B, h, w, C], each divided so that squared differences are means over its places."""
    return jnp.concatenate([(m / (m.shape[1] * m.shape[2]) ** 0.5).reshape(len(m), -1) for m in maps], -1)
