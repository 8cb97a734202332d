"""Long sequences in windows of one size that overlap, so that memory does not grow with the sequence (arXiv:2103.03841).

Window k holds the tuples k T .. k T + S - 1, with T = size S - overlap O. The first window predicts all of its tuples, a later
one those behind the overlap, with the overlap as context; all that came before them is given as a DCT image.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jgen.dct.sequence import Layout, Tuples, start
from jgen.errors import UserError
from jgen.types import Array


class Chunks(NamedTuple):
    """Windows over sequences of at most `length` tuples and a stop."""

    size: int
    overlap: int
    length: int

    @property
    def stride(self) -> int:
        return self.size - self.overlap

    @property
    def count(self) -> int:
        """Windows that the longest sequence needs."""
        return 1 + max(0, -(-(self.length + 1 - self.size) // self.stride))

    @property
    def total(self) -> int:
        """Places in all windows."""
        return self.count * self.stride + self.overlap

    def needed(self, tuples: Array) -> Array:
        """Windows that sequences of so many tuples and their stop need."""
        more = -(-(tuples + 1 - self.size) // self.stride)
        return 1 + jnp.clip(more, 0, self.count - 1)

    def before(self, k: Array) -> Array:
        """How many tuples came before those that window k predicts."""
        return jnp.where(k > 0, k * self.stride + self.overlap, 0)

    def predicted(self, k: Array) -> Array:
        """bool [..., size]: the places of windows k [...] that are predicted and not context."""
        places = jnp.arange(self.size).reshape((1,) * k.ndim + (-1,))
        return places >= jnp.where(k > 0, self.overlap, 0)[..., None]

    def window(self, tuples: Tuples, k: Array) -> Tuples:
        """[B, size + 1]: the tuples of windows k [B] of sequences [B, total], and the one before each window."""
        first = start((len(k), 1))
        whole = Tuples(*(jnp.concatenate(pair, 1) for pair in zip(first, tuples)))

        def one(row: Array, k: Array) -> Array:
            return lax.dynamic_slice_in_dim(row, k * self.stride, self.size + 1)

        return whole.map(lambda each: jax.vmap(one)(each, k))

    def so_far(self, tuples: Tuples, k: Array, layout: Layout) -> Tuples:
        """The tuples that came before those that windows k [B] predict, and stops behind them."""
        here = jnp.arange(tuples.channel.shape[-1])[None] < self.before(k)[:, None]
        return Tuples(*(jnp.where(here, each, 0 if i else layout.channels) for i, each in enumerate(tuples)))


def chunks(layout: Layout, size: int, overlap: int, length: int = 0) -> Chunks:
    """Chunks for a layout's sequences; length 0 is the longest there can be. Raises UserError where they don't advance."""
    if overlap >= size:
        raise UserError(f"overlap={overlap}: must be below chunk={size}")
    if length > layout.size:
        raise UserError(f"length={length}: images have {layout.size} coefficients")
    return Chunks(size, overlap, length or layout.size)
