"""Raster-order decoding with cached activations: one scan over rows, and in it one over the pixels of a row.

A pixel costs one column of every layer, whatever the size of the image: what its layers need of the pixels before it is
kept in windows of a few rows (`jgen.nn.causal`), and what depends on the rows above alone is made once a row.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.nn.causal import Place, new_row
from jgen.types import Array, Key, PyTree

Cache = PyTree
Context = PyTree

Draw = Callable[[Array, Array], Array]
"""(outputs [B, K], uniforms in [0, 1) [B, U]) -> the values of a pixel [B, C]."""


class Decoder(NamedTuple):
    """How a network goes through an image. `decoder` makes one of a network with the methods `row` and `pixel`."""

    cache: Cache
    """As it is before the first row."""
    row: Callable[[Cache, Array, Array], tuple[Context, Cache]]
    """(cache, row, the row above [B, 1, W, C]) -> (context: a tree of [B, 1, W, ...], cache)."""
    pixel: Callable[[Cache, Array, Array, Array, Context], tuple[Array, Cache]]
    """(cache, row, column, pixel before [B, 1, 1, C], context at the column) -> (outputs [B, K], cache)."""


def decoder(
    net: nn.Module, variables: Mapping[str, PyTree], shape: tuple[int, int, int, int], label: Any = None, **known: Any
) -> Decoder:
    """The decoder of a PixelCNN for images of `shape` [B, H, W, C]; label int [B] where it is class-conditional.

    known: what else its method `row` takes, such as `beneath` of GatedPixelCNN.
    """
    batch, _, width, channels = shape
    zero = jnp.zeros((), jnp.int32)

    def row(cache: Cache, r: Array, above: Array) -> tuple[Context, Cache]:
        place = Place(r, None, width)
        context, lines = net.apply({**variables, **cache}, above, place, label, method="row", mutable=_lines(cache), **known)
        return context, new_row({**cache, **lines}, r)

    def pixel(cache: Cache, r: Array, c: Array, before: Array, context: Context) -> tuple[Array, Cache]:
        place, mutable = Place(r, c, width), _pixels(cache)
        given = (before, context, place, label)
        outputs, windows = net.apply({**variables, **cache}, *given, method="pixel", mutable=mutable)
        return outputs[:, 0, 0], {**cache, **windows}

    # The first call of each makes its windows: only their shapes matter.
    above, before = jnp.zeros((batch, 1, width, channels)), jnp.zeros((batch, 1, 1, channels))

    def make() -> Cache:
        context, lines = net.apply(
            variables, above, Place(zero, None, width), label, method="row", mutable=_lines(None), **known
        )
        here = jax.tree.map(lambda x: x[:, :, :1], context)
        place = Place(zero, zero, width)
        _, windows = net.apply(variables, before, here, place, label, method="pixel", mutable=_pixels(None))
        return {**lines, **windows}

    cache = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), jax.eval_shape(make))
    return Decoder(cache, row, pixel)


SCALES = (1, 2, 4, 8, 16)


def _lines(cache: Cache | None) -> list[str]:
    return ["lines"] if cache is None or "lines" in cache else []


def _pixels(cache: Cache | None) -> list[str]:
    return [name for name in (*(f"pixels_{s}" for s in SCALES), "pixels_last") if cache is None or name in cache]


def autoregressive(
    decode: Decoder,
    draw: Draw,
    keys: Key,
    *,
    shape: tuple[int, int, int],
    uniforms: int = 1,
    given: Array | None = None,
    known: Array | None = None,
) -> Array:
    """Images [B, H, W, C], drawn pixel by pixel in raster order.

    keys: one an image [B]; pixel number n of an image draws its `uniforms` from fold_in(key, n) and so depends on
    nothing else. draw: an output's, such as `likelihood.categorical(256).draw`. given [B, H, W, C] and known bool [H, W]
    or [B, H, W]: pixels to keep, for inpainting; what is drawn after them follows from them. Raises UserError for a
    `given` of another shape.
    """
    height, width, _ = shape
    numbers = jnp.arange(height * width).reshape(height, width)

    def noise(row: Array) -> Array:
        def of(key: Key) -> Array:
            return jax.vmap(lambda n: jax.random.uniform(jax.random.fold_in(key, n), (uniforms,)))(numbers[row])

        return jax.vmap(of)(keys)

    return raster(decode, draw, noise, (len(keys), *shape), given, known)


def raster(
    decode: Decoder,
    draw: Draw,
    noise: Callable[[Array], Array],
    shape: tuple[int, int, int, int],
    given: Array | None = None,
    known: Array | None = None,
) -> Array:
    """`autoregressive` with its random numbers as an argument: row -> uniforms [B, W, U]."""
    batch, height, width, channels = shape
    if (given is None) != (known is None) or (given is not None and given.shape != shape):
        raise UserError(f"given: shape {None if given is None else given.shape} must be {shape}, and go with known")
    keep = jnp.zeros((batch, height, width), bool) if known is None else jnp.broadcast_to(known, shape[:3])
    fixed = jnp.zeros(shape) if given is None else given

    def one_row(carry: tuple[Cache, Array], rows: tuple[Array, Array, Array]) -> tuple[tuple[Cache, Array], Array]:
        (cache, above), (r, fixed, keep) = carry, rows
        context, cache = decode.row(cache, r, above[:, None])

        def one_pixel(carry: tuple[Cache, Array], columns: Any) -> tuple[tuple[Cache, Array], Array]:
            (cache, before), (c, context, u, fixed, keep) = carry, columns
            here = jax.tree.map(lambda x: x[:, None, None], context)
            outputs, cache = decode.pixel(cache, r, c, before[:, None, None], here)
            value = jnp.where(keep[:, None], fixed, draw(outputs, u))
            return (cache, value), value

        context = jax.tree.map(lambda x: x[:, 0], context)
        columns = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (context, noise(r), fixed, keep))
        start = (cache, jnp.zeros((batch, channels)))
        (cache, _), values = lax.scan(one_pixel, start, (jnp.arange(width), *columns))
        row = jnp.moveaxis(values, 0, 1)
        return (cache, row), row

    rows = (jnp.arange(height), jnp.moveaxis(fixed, 1, 0), jnp.moveaxis(keep, 1, 0))
    _, image = lax.scan(one_row, (decode.cache, jnp.zeros((batch, width, channels))), rows)
    return jnp.moveaxis(image, 0, 1)
