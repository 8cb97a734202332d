"""Quantised DCT images as sparse sequences of (channel, position, value), and back (Nash et al. 2021, arXiv:2103.03841).

A DCT image is int32 [..., channels, positions]: a channel is one frequency of one colour, a position one block of the image,
row by row. Its sequence lists the coefficients that are not 0, sorted by channel and then by position, and ends in a stop.
Channels go from low frequencies to high ones in zig-zag order, the colours of a frequency side by side, so that the first part
of any sequence is a coarse image of all colours.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jgen.dct import jpeg
from jgen.errors import UserError
from jgen.types import Array


class Layout(NamedTuple):
    """The size of a DCT image, and the range of its coefficients."""

    rows: int
    columns: int
    bounds: tuple[int, ...]
    """The greatest absolute value of each channel."""

    @property
    def channels(self) -> int:
        """The number of channels, which is also the channel of the stop."""
        return len(self.bounds)

    @property
    def positions(self) -> int:
        return self.rows * self.columns

    @property
    def size(self) -> int:
        """Coefficients of an image, and the longest sequence."""
        return self.channels * self.positions

    @property
    def values(self) -> np.ndarray:
        """int [2 V]: -V..-1, 1..V, which a coefficient of some channel can be."""
        most = max(self.bounds)
        return np.array([*range(-most, 0), *range(1, most + 1)])


class Tuples(NamedTuple):
    """Sequences, each int32 [..., L]; behind the last coefficient the channel is the stop, the others 0."""

    channel: Array
    position: Array
    value: Array

    def map(self, function: Callable[[Array], Array]) -> "Tuples":
        """A function of each of the three."""
        return Tuples(*map(function, self))


def layout(shape: tuple[int, int, int], quality: int, block: int = jpeg.BLOCK) -> Layout:
    """The layout of images [H, W, C], of whole blocks that cover them. Raises UserError for C not 1 or 3."""
    height, width, colours = shape
    if colours not in (1, 3):
        raise UserError(f"images of {colours} channels: must have 1 or 3")
    bounds = jpeg.bounds(quality, colours, block).T.reshape(-1)
    return Layout(-(-height // block), -(-width // block), tuple(map(int, bounds)))


def planes_of(levels: Array) -> Array:
    """`jpeg.quantized`'s levels [..., H/B, W/B, C, B^2] as DCT images [..., B^2 C, positions]."""
    *lead, rows, columns, colours, frequencies = levels.shape
    return jnp.einsum("...rckf->...fkrc", levels).reshape(*lead, frequencies * colours, rows * columns)


def levels_of(planes: Array, layout: Layout, colours: int) -> Array:
    """The inverse of `planes_of`."""
    wide = planes.reshape(*planes.shape[:-2], -1, colours, layout.rows, layout.columns)
    return jnp.einsum("...fkrc->...rckf", wide)


def encode(planes: Array, layout: Layout, length: int = 0) -> Tuples:
    """DCT images [..., channels, positions] -> sequences of `length` places (0: as many as there are coefficients).

    Raises UserError for coefficients out of range and for images with more than `length` coefficients that are not 0. Under
    `jax.jit` neither can be seen: the end of a longer sequence is then cut off, and `count` tells how long it would be.
    """
    length = length or layout.size
    if not isinstance(planes, Tracer):
        _check_planes(np.asarray(planes), layout, length)
    flat = planes.reshape(*planes.shape[:-2], -1)
    slots = jnp.arange(layout.size, dtype=jnp.int32).reshape((1,) * (flat.ndim - 1) + (-1,))
    slots = jnp.sort(jnp.where(flat != 0, slots, layout.size), -1)[..., :length]
    slots = jnp.pad(slots, [(0, 0)] * (flat.ndim - 1) + [(0, length - slots.shape[-1])], constant_values=layout.size)
    stop = slots == layout.size
    value = jnp.take_along_axis(flat, jnp.where(stop, 0, slots), -1)
    zero = jnp.zeros_like(slots)
    return Tuples(slots // layout.positions, jnp.where(stop, zero, slots % layout.positions), jnp.where(stop, zero, value))


def decode(tuples: Tuples, layout: Layout) -> Array:
    """Sequences [..., L] -> DCT images int32 [..., channels, positions].

    Raises UserError for tuples that no sequence has: out of range, or not in order (not under `jax.jit`).
    """
    if not any(isinstance(each, Tracer) for each in tuples):
        check(tuples, layout)
    lead, length = tuples.channel.shape[:-1], tuples.channel.shape[-1]
    slots = slot(tuples, layout).reshape(-1, length)
    values = jnp.where(tuples.channel < layout.channels, tuples.value, 0).reshape(-1, length)
    flat = jnp.zeros((len(slots), layout.size + 1), jnp.int32)
    flat = jax.vmap(lambda own, at, values: own.at[at].set(values.astype(jnp.int32)))(flat, slots, values)
    return flat[:, :-1].reshape(*lead, layout.channels, layout.positions)


def slot(tuples: Tuples, layout: Layout) -> Array:
    """The place of each coefficient in the order of sequences; that of the stop is the last."""
    return jnp.where(tuples.channel < layout.channels, tuples.channel * layout.positions + tuples.position, layout.size)


def count(planes: Array) -> Array:
    """How many coefficients of each DCT image are not 0."""
    return jnp.sum(planes != 0, (-2, -1))


def _check_planes(planes: np.ndarray, layout: Layout, length: int) -> None:
    if planes.shape[-2:] != (layout.channels, layout.positions):
        raise UserError(f"planes: shape {planes.shape} must end in {(layout.channels, layout.positions)}")
    over = np.abs(planes) > np.array(layout.bounds)[:, None]
    if over.any():
        at = tuple(map(int, np.argwhere(over)[0]))
        most = layout.bounds[at[-2]]
        raise UserError(f"coefficient {planes[at]} of channel {at[-2]}: must be from {-most} to {most} at this quality")
    found = int((planes != 0).sum((-2, -1)).max(initial=0))
    if found > length:
        raise UserError(f"length={length}: an image has {found} coefficients that are not 0")


def check(tuples: Tuples, layout: Layout) -> None:
    """Raises UserError for the first tuple that no sequence has."""
    channel, position, value = (np.asarray(each).reshape(-1, each.shape[-1]) for each in tuples)
    stop = channel == layout.channels
    bounds = np.array([*layout.bounds, 0])
    known = (channel >= 0) & (channel <= layout.channels)
    placed = stop | (position >= 0) & (position < layout.positions)
    most = bounds[np.clip(channel, 0, layout.channels)]
    valued = stop | (value != 0) & (np.abs(value) <= most)
    slots = np.where(stop, layout.size, channel * layout.positions + position)
    ordered = np.diff(slots, axis=-1, prepend=-1) > 0
    ordered |= stop & (np.roll(stop, 1, -1) | (np.arange(stop.shape[-1]) == 0))
    for good, what in ((known, "channel"), (placed, "position"), (valued, "value"), (ordered, "order")):
        if not good.all():
            i, j = map(int, np.argwhere(~good)[0])
            ranges = {
                "channel": f"channel must be from 0 to {layout.channels}",
                "position": f"position must be from 0 to {layout.positions - 1}",
                "value": f"value must be from {-most[i, j]} to {most[i, j]} and not 0",
                "order": "must come after the one before, by channel and then by position",
            }
            raise UserError(f"tuple {j} ({channel[i, j]}, {position[i, j]}, {value[i, j]}): {ranges[what]}")


def start(shape: tuple[int, ...]) -> Tuples:
    """Tuples that stand before the first ones."""
    zero = jnp.zeros(shape, jnp.int32)
    return Tuples(zero - 1, zero, zero)


def legal_channels(before: Tuples, layout: Layout, last: Array | None = None) -> Array:
    """bool [..., channels + 1]: the channels that a tuple after those of `before` [...] can have; the stop comes last.

    last int [..., channels]: the last position of each channel that is to be drawn, -1 for none; all where not given.
    """
    channels = jnp.arange(layout.channels).reshape((1,) * before.channel.ndim + (-1,))
    passed = jnp.where(channels == before.channel[..., None], before.position[..., None], -1)
    ahead = (channels >= before.channel[..., None]) & (passed < (layout.positions - 1 if last is None else last))
    return jnp.concatenate([ahead, jnp.ones_like(ahead[..., :1])], -1)


def legal_positions(before: Tuples, channel: Array, layout: Layout, free: Array | None = None) -> Array:
    """bool [..., positions]: those that a tuple of a channel can have after `before`; all for the stop, which has none.

    free bool [..., channels, positions]: the coefficients that are to be drawn; all where not given.
    """
    positions = jnp.arange(layout.positions).reshape((1,) * channel.ndim + (-1,))
    passed = jnp.where(channel == before.channel, before.position, -1)
    legal = positions > passed[..., None]
    if free is not None:
        own = jnp.minimum(channel, layout.channels - 1)[..., None, None]
        legal &= jnp.take_along_axis(free, own, -2)[..., 0, :]
    return legal | (channel == layout.channels)[..., None]


def legal_values(channel: Array, layout: Layout) -> Array:
    """bool [..., 2 V]: which of the layout's values a coefficient of a channel can have; all for the stop, which has none."""
    most = jnp.asarray([*layout.bounds, max(layout.bounds)])[channel]
    return jnp.abs(jnp.asarray(layout.values)).reshape((1,) * channel.ndim + (-1,)) <= most[..., None]
