"""PixelCNN++ (Salimans et al. 2017, arXiv:1701.05517): shifted convolutions on several scales, weight-normalised.

Two streams, as in the authors' code: `u` sees the rows above, `ul` besides them the pixels to the left. Each goes down
through levels of gated residual blocks and up again, with a shortcut from every feature map on the way down to its
counterpart on the way up. Same three methods as in `jgen.models.pixelcnn`; weight normalisation sets its scales from the
images that `init` is given.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.models.pixelcnn import Context, Encoding, check_label
from jgen.nn.causal import CausalConv, Dense, Kernel, Place, RowConv
from jgen.nn.plain import convolve_transposed
from jgen.types import Array


def concat_elu(x: Array) -> Array:
    """ELU of x and of -x: twice the channels."""
    return nn.elu(jnp.concatenate([x, -x], -1))


def down_shift(x: Array) -> Array:
    """Every row moved down by one."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


class GatedResidual(nn.Module):
    """x + gate(conv(concat_elu(conv(concat_elu(x)) + 1x1(concat_elu(shortcut))))), with dropout between."""

    features: int
    rows: bool
    """Belongs to the stream that sees rows above: its convolutions are 2x3, the other's 2x2."""
    scale: int
    dropout: float
    classes: int

    @nn.compact
    def __call__(self, x: Array, shortcut: Array | None, place: Place | None, label: Array | None, train: bool) -> Array:
        def conv(width: int, name: str, gain: float) -> Any:
            if self.rows:
                return RowConv(width, (2, 3), scale=self.scale, gain=gain, name=name)
            return CausalConv(width, (2, 2), 1, scale=self.scale, gain=gain, name=name)

        h = conv(self.features, "conv1", 1.0)(concat_elu(x), place)
        if shortcut is not None:
            h = h + Dense(self.features, 1.0, name="shortcut")(concat_elu(shortcut))
        h = nn.Dropout(self.dropout, deterministic=not train)(concat_elu(h))
        h = conv(2 * self.features, "conv2", 0.1)(h, place)
        if self.classes and label is not None:
            h = h + nn.Embed(self.classes, 2 * self.features, name="condition")(label)[:, None, None]
        a, b = jnp.split(h, 2, -1)
        return x + a * nn.sigmoid(b)


class Upsample(nn.Module):
    """Transposed convolution of stride 2 that keeps to what came before: 2x3 on rows, 2x2 on pixels.

    Row by row (pixel by pixel) its input counts at even rows (and columns) only, and is kept for the odd ones.
    """

    features: int
    rows: bool
    scale: int
    """Image rows to a row of the result."""

    @nn.compact
    def __call__(self, x: Array, place: Place | None = None) -> Array:
        columns = 3 if self.rows else 2

        def spread(kernel: Array) -> Array:
            return convolve_transposed(x, kernel, ((1, 1), (1, columns - 1)))

        if place is not None:
            x = self._kept(x, place)
        kernel, bias = Kernel((2, columns), self.features, 1.0, name="own")(x.shape[-1], spread)
        out = spread(kernel) + bias[None, None, None]
        if place is None:
            return out
        out = lax.dynamic_slice_in_dim(out, place.row // self.scale % 2, 1, 1)
        if place.column is None:
            return out
        return lax.dynamic_slice_in_dim(out, place.column // self.scale % 2, 1, 2)

    def _kept(self, x: Array, place: Place) -> Array:
        if place.column is None:
            kept = self.variable("lines", "last", jnp.zeros_like, x)
            kept.value = jnp.where(place.on(2 * self.scale), x, kept.value)
            return kept.value
        size, column = -(-place.width // (2 * self.scale)), place.column // (2 * self.scale)
        kept = self.variable("pixels_last", "row", jnp.zeros, (size, *x.shape), x.dtype)
        here = lax.dynamic_index_in_dim(kept.value, column, 0, keepdims=False)
        here = jnp.where(place.on(2 * self.scale), x, here)
        kept.value = lax.dynamic_update_index_in_dim(kept.value, here, column, 0)
        return here


class Level(nn.Module):
    """The blocks of a stream at one level, on the way down and up, and the steps to the next level and back."""

    features: int
    blocks: int
    rows: bool
    scale: int
    last: bool
    dropout: float
    classes: int

    def setup(self) -> None:
        f, scale = self.features, self.scale
        common = (f, self.rows, scale, self.dropout, self.classes)
        self.down = [GatedResidual(*common) for _ in range(self.blocks)]
        # One more on the way up, for the map that the level began with; at the last level the first is the bottom.
        self.up = [GatedResidual(*common) for _ in range(self.blocks + (not self.last))]
        if not self.last:
            if self.rows:
                self.shrink = RowConv(f, (2, 3), stride=2, scale=scale, gain=1.0)
            else:
                self.shrink = CausalConv(f, (2, 2), 1, stride=2, scale=scale, gain=1.0)
            self.grow = Upsample(f, self.rows, scale)


class PixelCNNPP(nn.Module):
    """Images [B, H, W, C] in [-1, 1] (or codes) -> outputs [B, H, W, K], those of a mixture of logistics in the paper.

    Sides must be divisible by 2^(levels - 1).
    """

    outputs: int
    features: int = 160
    blocks: int = 5
    levels: int = 3
    dropout: float = 0.5
    classes: int = 0
    codes: int = 0

    def setup(self) -> None:
        self.encode = Encoding(self.codes)
        self.u_first = RowConv(self.features, (2, 3), gain=1.0)
        self.ul_above = RowConv(self.features, (1, 3), gain=1.0)
        self.ul_left = CausalConv(self.features, (2, 1), 1, delayed=True, gain=1.0)
        self.u, self.ul = ([self._level(i, rows) for i in range(self.levels)] for rows in (True, False))
        self.head = Dense(self.outputs, 1.0)

    def _level(self, i: int, rows: bool) -> Level:
        return Level(self.features, self.blocks, rows, 2**i, i == self.levels - 1, self.dropout, self.classes)

    def __call__(self, x: Array, label: Array | None = None, train: bool = False) -> Array:
        if any(side % 2 ** (self.levels - 1) for side in x.shape[1:3]):
            raise UserError(f"levels={self.levels}: images {x.shape[1]}x{x.shape[2]} must divide by {2 ** (self.levels - 1)}")
        return self.pixel(x, self._rows(x, None, label, train), None, label, train)

    def row(self, x: Array, place: Place, label: Array | None = None) -> Context:
        """Everything that the rows above say of a row, given the row above [B, 1, W, C]."""
        above, maps = self._rows(x, place, label)
        # Maps of lower levels are stretched, so that every column of the image finds its own.
        return above, [jax.tree.map(lambda m, s=2**i: jnp.repeat(m, s, 2), level) for i, level in enumerate(maps)]

    def pixel(self, x: Array, context: Context, place: Place | None, label: Array | None = None, train: bool = False) -> Array:
        """Outputs of a pixel, given the pixel before it [B, 1, 1, C] and the context at it; or of whole images."""
        above, maps = context
        left = self.ul_left(self._padded(x, place), place)
        there = (jnp.arange(x.shape[2]) > 0)[None, None, :, None] if place is None else place.seen
        return self.head(nn.elu(self._pixels(0, above + left * there, maps, place, label, train)))

    def _padded(self, x: Array, place: Place | None) -> Array:
        """With a channel of ones, which tells the image from what lies around it."""
        x = self.encode(x, place)
        ones = jnp.ones((*x.shape[:-1], 1), x.dtype)
        return jnp.concatenate([x, ones if place is None else ones * place.seen], -1)

    def _rows(self, x: Array, place: Place | None, label: Array | None, train: bool = False) -> Context:
        check_label(self.classes, label)
        x = self._padded(x, place)
        # Row by row these see the row above already; on whole images their outputs move down by a row.
        u, above = self.u_first(x, place), self.ul_above(x)
        u, above = (down_shift(v) if place is None else v * place.seen for v in (u, above))
        maps: list[Any] = [None] * self.levels
        self._row_level(0, u, maps, place, label, train)
        return above, maps

    def _row_level(self, i: int, x: Array, found: list[Any], place: Place | None, label: Array | None, train: bool) -> Array:
        """A level of the stream of rows, and those below it; leaves every map that the other stream needs in `found`."""
        level, maps, up = self.u[i], [x], []
        for block in level.down:
            maps.append(block(maps[-1], None, place, label, train))
        down = maps[1:]
        x = maps.pop() if level.last else level.grow(
            self._row_level(i + 1, level.shrink(maps[-1], place), found, place, label, train), place
        )  # fmt: skip
        for block, shortcut in zip(level.up, reversed(maps)):
            x = block(x, shortcut, place, label, train)
            up.append(x)
        found[i] = down, up
        return x

    def _pixels(self, i: int, x: Array, context: list[Any], place: Place | None, label: Array | None, train: bool) -> Array:
        """A level of the stream of pixels, and those below it."""
        level, maps, (down, up) = self.ul[i], [x], context[i]
        for block, u in zip(level.down, down):
            maps.append(block(maps[-1], u, place, label, train))
        x = maps.pop() if level.last else level.grow(
            self._pixels(i + 1, level.shrink(maps[-1], place), context, place, label, train), place
        )  # fmt: skip
        for block, u, shortcut in zip(level.up, up, reversed(maps)):
            x = block(x, jnp.concatenate([u, shortcut], -1), place, label, train)
        return x
