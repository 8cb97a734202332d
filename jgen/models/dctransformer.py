"""DCTransformer (Nash et al. 2021, arXiv:2103.03841, section 3): an image as a sequence of (channel, position, value).

An encoder sees the DCT image so far. Three decoders stand on one another, and each attends to its own past and to the encoder's
outputs: the first predicts a tuple's channel from the tuples before it, the second its position, given the channel, and the
third its value, given both; it sees the position by the encoder's output at that place too. Only what can follow the tuple
before has a probability above 0 (`jgen.dct.sequence`). Coefficients enter the encoder as sign(v) log(1 + |v|).

The paper's decoders are PAR-Transformers (Mandava et al. 2020, arXiv:2009.04534), with fewer attention layers than MLPs; here
every layer has both.
"""

from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.dct.chunks import Chunks
from jgen.dct.sequence import Layout, Tuples, legal_channels, legal_positions, legal_values
from jgen.errors import UserError
from jgen.models.tarflow import patchify
from jgen.nn.decoder import DecoderLayer, KeysValues
from jgen.nn.dense import Dense
from jgen.types import Array

SMALL = nn.initializers.normal(0.02)

Choose = Callable[[int, Array], Array]
"""(0 for channels, 1 for positions, 2 for values; logits [B, S, K]) -> the chosen indices [B, S]."""


class Logits(NamedTuple):
    """Logits of the parts of tuples; -inf for what can't follow."""

    channel: Array
    """[B, S, channels + 1]: the stop comes last."""
    position: Array
    """[B, S, positions], given the channel."""
    value: Array
    """[B, S, 2 V] of `Layout.values`, given channel and position."""


class Context(NamedTuple):
    """An encoded DCT image."""

    memory: Array
    """[B, patches, width]."""
    keys: list[list[KeysValues]]
    """Keys and values of each layer of each decoder."""


class Slots(NamedTuple):
    """Which coefficients of an image are to be drawn; `slots_of` makes it."""

    free: Array
    """bool [B, channels, positions]."""
    last: Array
    """int [B, channels]: the last of them in each channel, -1 where there is none."""


def slots_of(free: Array) -> Slots:
    return Slots(free, jnp.max(jnp.where(free, jnp.arange(free.shape[-1])[None, None], -1), -1))


class Decoder(nn.Module):
    """Causal transformer layers over tuples, which attend to a context too."""

    layers: int
    heads: int
    width: int
    dropout: float = 0.0

    def setup(self) -> None:
        self.layer = [DecoderLayer(self.heads, self.width, True, dropout=self.dropout) for _ in range(self.layers)]
        self.norm = nn.LayerNorm(epsilon=1e-5)

    def __call__(self, x: Array, context: list[KeysValues], train: bool = False) -> Array:
        for layer, keys in zip(self.layer, context):
            x = layer(x, keys, train=train)
        return self.norm(x)

    def step(self, x: Array, kept: list[KeysValues], place: Array, context: list[KeysValues]) -> tuple[Array, list[KeysValues]]:
        """One place x [B, 1, width] after those that are kept, and what is kept then."""
        new = []
        for layer, cache, keys in zip(self.layer, kept, context):
            x, cache = layer.step(x, cache, place, keys)
            new.append(cache)
        return self.norm(x), new

    def context_keys(self, memory: Array) -> list[KeysValues]:
        return [layer.context_keys(memory) for layer in self.layer]

    def empty(self, batch: int, length: int) -> list[KeysValues]:
        return [layer.empty(batch, length) for layer in self.layer]


class DCTransformer(nn.Module):
    """Windows of sequences (`jgen.dct.chunks`), given the DCT image before them."""

    layout: Layout
    chunks: Chunks
    width: int = 512
    heads: int = 8
    encoder_layers: int = 3
    channel_layers: int = 3
    position_layers: int = 3
    value_layers: int = 3
    patch: int = 1
    """The encoder's tokens are patches of so many positions a side."""
    classes: int = 0
    dropout: float = 0.0
    """Share of the outputs of attention and MLPs that is left out in training."""

    def setup(self) -> None:
        layout, chunks, width = self.layout, self.chunks, self.width
        if layout.rows % self.patch or layout.columns % self.patch:
            raise UserError(f"patch={self.patch}: must divide the {layout.rows}x{layout.columns} blocks of an image")
        if width % self.heads:
            raise UserError(f"heads={self.heads}: must divide width={width}")
        self.patch_in, self.encoder_norm = Dense(width), nn.LayerNorm(epsilon=1e-5)
        self.encoder = [DecoderLayer(self.heads, width, dropout=self.dropout) for _ in range(self.encoder_layers)]
        self.patch_embed = self.param("patch_embed", SMALL, (layout.positions // self.patch**2, width))
        self.channel_embed = nn.Embed(layout.channels + 2, width, embedding_init=SMALL)  # with a start and a stop
        self.position_embed = nn.Embed(layout.positions, width, embedding_init=SMALL)
        self.value_embed = nn.Embed(len(layout.values) + 1, width, embedding_init=SMALL)  # with a 0, of start and stop
        self.place_embed = nn.Embed(chunks.size, width, embedding_init=SMALL)
        self.chunk_embed = nn.Embed(chunks.count, width, embedding_init=SMALL)
        if self.classes:
            self.class_embed = nn.Embed(self.classes, width, embedding_init=SMALL)
        layers = (self.channel_layers, self.position_layers, self.value_layers)
        self.decoders = [Decoder(number, self.heads, width, self.dropout) for number in layers]
        self.channel_head, self.position_head = Dense(layout.channels + 1), Dense(layout.positions)
        self.value_head = Dense(len(layout.values))

    def __call__(
        self, window: Tuples, image: Array, chunk: Array, label: Array | None = None, slots: Slots | None = None,
        train: bool = False,
    ) -> Logits:  # fmt: skip
        """Logits of window[:, 1:], given window[:, 0] before them, the DCT image so far and the window's number [B]."""
        before, now = window.map(lambda x: x[:, :-1]), window.map(lambda x: x[:, 1:])
        context, found = self.encode(image, label, train), []
        indices = (now.channel, now.position, self.value_index(now.value))

        def choose(part: int, logits: Array) -> Array:
            found.append(logits)
            return indices[part]

        def run(part: int, x: Array) -> Array:
            return self.decoders[part](x, context.keys[part], train)

        places = jnp.arange(self.chunks.size)[None]
        self._tuple(before, self._inputs(before, places, chunk, label), context, run, choose, slots)
        return Logits(*found)

    def step(
        self, context: Context, kept: list[list[KeysValues]], place: Array, before: Tuples, chunk: Array, choose: Choose,
        label: Array | None = None, slots: Slots | None = None,
    ) -> tuple[Tuples, list[list[KeysValues]]]:  # fmt: skip
        """The tuple [B, 1] that `choose` chooses at a place (a scalar) of window `chunk` [B], after `before` [B, 1]."""
        new = list(kept)

        def run(part: int, x: Array) -> Array:
            x, new[part] = self.decoders[part].step(x, kept[part], place, context.keys[part])
            return x

        x = self._inputs(before, place.reshape(1, 1), chunk, label)
        return self._tuple(before, x, context, run, choose, slots), new

    def encode(self, image: Array, label: Array | None = None, train: bool = False) -> Context:
        """A DCT image [B, channels, positions], to be decoded from."""
        rows, columns = self.layout.rows, self.layout.columns
        x = jnp.sign(image) * jnp.log1p(jnp.abs(image).astype(self.patch_embed.dtype))
        x = jnp.swapaxes(x, 1, 2).reshape(-1, rows, columns, self.layout.channels)
        x = self.patch_in(patchify(x, self.patch)) + self.patch_embed[None] + self._class(label)
        everything = jnp.ones((1, x.shape[1], x.shape[1]), bool)
        for layer in self.encoder:
            x = layer(x, seen=everything, train=train)
        memory = self.encoder_norm(x)
        return Context(memory, [decoder.context_keys(memory) for decoder in self.decoders])

    def empty(self, batch: int) -> list[list[KeysValues]]:
        """Room for the keys and values of a window."""
        return [decoder.empty(batch, self.chunks.size) for decoder in self.decoders]

    def value_index(self, value: Array) -> Array:
        """The index of values among `Layout.values`."""
        return value + len(self.layout.values) // 2 - (value > 0)

    def _tuple(
        self, before: Tuples, x: Array, context: Context, run: Callable[[int, Array], Array], choose: Choose,
        slots: Slots | None,
    ) -> Tuples:  # fmt: skip
        """The three heads, one on the other; run(part, x) is a decoder, over whole windows or over one place."""
        h = run(0, x)
        free, last = (None, None) if slots is None else (slots.free[:, None], slots.last[:, None])
        channel = choose(0, masked(self.channel_head(h), legal_channels(before, self.layout, last)))
        h = run(1, h + self.channel_embed(channel + 1))
        legal = legal_positions(before, channel, self.layout, free)
        position = choose(1, masked(self.position_head(h), legal))
        h = run(2, h + self.position_embed(position) + self._at(context.memory, position))
        index = choose(2, masked(self.value_head(h), legal_values(channel, self.layout)))
        stop = channel == self.layout.channels
        value = jnp.asarray(self.layout.values, jnp.int32)[index]
        return Tuples(channel.astype(jnp.int32), *(jnp.where(stop, 0, x).astype(jnp.int32) for x in (position, value)))

    def _inputs(self, before: Tuples, places: Array, chunk: Array, label: Array | None) -> Array:
        """[B, S, width] of the tuples before each place, the places [1, S] in the window, and its number [B]."""
        x = self.channel_embed(before.channel + 1) + self.position_embed(before.position)
        x = x + self.value_embed(before.value + len(self.layout.values) // 2)
        return x + self.place_embed(places) + self.chunk_embed(chunk)[:, None] + self._class(label)

    def _at(self, memory: Array, position: Array) -> Array:
        """The encoder's outputs [B, S, width] at positions [B, S]."""
        row, column = position // self.layout.columns, position % self.layout.columns
        patch = row // self.patch * (self.layout.columns // self.patch) + column // self.patch
        return jnp.take_along_axis(memory, patch[..., None], 1)

    def _class(self, label: Array | None) -> Array:
        if (label is None) == bool(self.classes):
            raise UserError(f"label={'none' if label is None else 'given'}: this network has {self.classes} classes")
        return jnp.zeros((1, 1, self.width)) if label is None else self.class_embed(label)[:, None]


def masked(logits: Array, legal: Array) -> Array:
    return jnp.where(legal, logits, -jnp.inf)
