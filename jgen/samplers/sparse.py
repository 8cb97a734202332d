"""Sparse sequences drawn tuple by tuple with cached keys and values: one scan over windows, and in it one over their places.

A tuple costs the same however many came before it: attention sees its window, and the encoder runs once a window. Coefficients
may be known beforehand, which upsamples (the low frequencies are known) or inpaints (some blocks are).
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import lax

from jgen.dct.chunks import Chunks
from jgen.dct.sequence import Layout, Tuples, decode, encode, slot, start
from jgen.errors import UserError
from jgen.models.dctransformer import Choose, Slots, slots_of
from jgen.objectives.likelihood import draw_index
from jgen.types import Array, Key, PyTree

Cache = PyTree


class Step(Protocol):
    def __call__(
        self, context: Any, kept: Cache, place: Array, before: Tuples, chunk: Array, choose: Choose, slots: Slots | None, /
    ) -> tuple[Tuples, Cache]:
        """`DCTransformer.step` of some weights and labels."""
        ...


class SparseDecoder(NamedTuple):
    """A network's way through a sequence."""

    encode: Callable[[Array], Any]
    """The DCT image so far [B, channels, positions] -> the context."""
    step: Step
    empty: Cache
    """The cache at the start of a window."""


class Known(NamedTuple):
    """Coefficients to keep."""

    planes: Array
    """int32 [B, channels, positions]."""
    mask: Array
    """bool [B, channels, positions]: which of them are known."""


def sparse_autoregressive(
    decoder: SparseDecoder, layout: Layout, chunks: Chunks, keys: Key, *, known: Known | None = None,
    temperature: float = 1.0, top_k: int = 0,
) -> Array:  # fmt: skip
    """DCT images int32 [B, channels, positions]; image i depends on keys[i] alone, its tuple j on fold_in(keys[i], j).

    known: coefficients to keep. The sequence then goes on with the next known tuple wherever one that comes after it was drawn;
    what is drawn looks back at known tuples, and at those ahead not at all. Raises UserError for known of another shape.
    """
    batch = len(keys)
    shape = (batch, layout.channels, layout.positions)
    if known is not None and (known.planes.shape != shape or known.mask.shape != shape):
        raise UserError(f"known: shapes {known.planes.shape} and {known.mask.shape} must be {shape}")
    slots = None if known is None else slots_of(~known.mask)
    given = None if known is None else encode(jnp.where(known.mask, known.planes, 0), layout, layout.size + 1)

    def uniforms(j: Array) -> Array:
        return jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, j), (3,)))(keys)

    def one_window(carry: tuple[Tuples, Array], k: Array) -> tuple[tuple[Tuples, Array], None]:
        tuples, passed = carry
        number = jnp.full((batch,), k)
        window = chunks.window(tuples, number)
        context = decoder.encode(decode(chunks.so_far(tuples, number, layout), layout))

        def one_tuple(carry: tuple[Cache, Tuples, Array], place: Array) -> tuple[tuple[Cache, Tuples, Array], Tuples]:
            kept, before, passed = carry
            again = (k > 0) & (place < chunks.overlap)  # context from the window before
            old = window.map(lambda x: lax.dynamic_slice_in_dim(x, place + 1, 1, 1))
            ahead = old if given is None else given.map(lambda x: jnp.take_along_axis(x, passed[:, None], 1))
            wanted = Tuples(*(jnp.where(again, *pair) for pair in zip(old, ahead)))
            draw = _chooser(uniforms(k * chunks.stride + place), temperature, top_k)
            choose = _kept(draw, wanted, again, given is not None, layout)
            now, kept = decoder.step(context, kept, place, before, number, choose, slots)
            if given is not None:
                emitted = ~again & (slot(now, layout) == slot(ahead, layout)) & (ahead.channel < layout.channels)
                passed = passed + emitted[:, 0]
            return (kept, now, passed), now

        first = window.map(lambda x: x[:, :1])
        places = jnp.arange(chunks.size)
        (_, _, passed), found = lax.scan(one_tuple, (decoder.empty, first, passed), places)
        found = found.map(lambda x: jnp.moveaxis(x[..., 0], 0, 1))
        tuples = Tuples(*(lax.dynamic_update_slice_in_dim(*pair, k * chunks.stride, 1) for pair in zip(tuples, found)))
        return (tuples, passed), None

    nothing = start((batch, chunks.total))
    blank = Tuples(nothing.channel + 1 + layout.channels, nothing.position, nothing.value)
    (tuples, _), _ = lax.scan(one_window, (blank, jnp.zeros(batch, jnp.int32)), jnp.arange(chunks.count))
    planes = decode(tuples, layout)
    return planes if known is None else jnp.where(known.mask, known.planes, planes)


def _chooser(uniforms: Array, temperature: float, top_k: int) -> Choose:
    def choose(part: int, logits: Array) -> Array:
        return draw_index(logits, uniforms[:, part, None], temperature, top_k)

    return choose


def _kept(draw: Choose, wanted: Tuples, again: Array, known: bool, layout: Layout) -> Choose:
    """Takes the wanted tuple [B, 1] where it is to come `again`, or, being known, before the one that is drawn."""
    half = len(layout.values) // 2
    indices = (wanted.channel, wanted.position, wanted.value + half - (wanted.value > 0))
    take, tied = jnp.broadcast_to(again, wanted.channel.shape), True

    def choose(part: int, logits: Array) -> Array:
        nonlocal take, tied
        drawn = draw(part, logits)
        if known and part < 2:
            take = take | (tied & (drawn > indices[part]))
            tied = tied & (drawn == indices[part])
        return jnp.where(take, indices[part], drawn)

    return choose
