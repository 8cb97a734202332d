"""Causal convolutions that run in three ways with one set of weights: on whole images, row by row, pixel by pixel.

Decoding visits pixels in raster order. What depends on rows above only is computed a row at a time; what depends on the
pixels to the left, a pixel at a time, from a window of the few rows that a kernel sees. So a pixel costs the same in an
image of any size. Windows live in the Linen collections "lines" (row by row) and "pixels_S" (pixel by pixel, S the
number of image rows to a row of the layer), which `new_row` moves on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.nn.conv import convolve
from jgen.types import Array


class Place(NamedTuple):
    """Where a decoder stands, in rows and columns of the image."""

    row: Array
    column: Array | None
    """None: a whole row at once."""
    width: int
    """Width of the image."""

    @property
    def seen(self) -> Array:
        """float32: 1 where there was a pixel (a row) before this one, else 0."""
        return ((self.row if self.column is None else self.column) > 0).astype(jnp.float32)

    def on(self, scale: int) -> Array:
        """bool: whether a layer with a row to every `scale` rows of the image (and a column likewise) has one here."""
        here = self.row % scale == 0
        return here if self.column is None else here & (self.column % scale == 0)


class Kernel(nn.Module):
    """Weights [*shape, I, O] and bias of a convolution; weight-normalised with data-dependent scales where `gain` is given.

    Weight normalisation: kernel = g v / |v|, with g and b such that on the first batch every output channel has mean 0
    and deviation `gain` (Salimans & Kingma 2016, arXiv:1602.07868). `init` must then be run on real images.
    """

    shape: Sequence[int]
    features: int
    gain: float | None = None

    @nn.compact
    def __call__(self, channels: int, run: Any, mask: np.ndarray | None = None) -> tuple[Array, Array]:
        """(kernel, bias); run(kernel) gives the outputs without bias that data-dependent scales are taken from."""
        size = (*self.shape, channels, self.features)
        if self.gain is None:
            fan_in = size[:-1] if mask is None else (int(mask.sum()) or 1, channels)
            init = nn.initializers.normal(float(1 / np.sqrt(np.prod(fan_in))))
            kernel = self.param("kernel", init, size)
            return _masked(kernel, mask), self.param("bias", nn.initializers.zeros, (self.features,))
        v = _masked(self.param("v", nn.initializers.normal(0.05), size), mask)
        unit = v / jnp.sqrt(jnp.sum(v * v, tuple(range(len(size) - 1)), keepdims=True) + 1e-12)
        gain = self.gain

        def scales(_: Any) -> Array:
            out = run(unit).reshape(-1, self.features)
            scale = gain / jnp.sqrt(jnp.var(out, 0) + 1e-10)
            return jnp.stack([scale, -jnp.mean(out, 0) * scale])

        first = scales(None) if self.is_initializing() else jnp.zeros((2, self.features))
        g = self.param("g", lambda _: first[0])
        return unit * jnp.broadcast_to(g, unit.shape), self.param("bias", lambda _: first[1])


def _masked(kernel: Array, mask: np.ndarray | None) -> Array:
    return kernel if mask is None else kernel * jnp.asarray(mask, kernel.dtype)[:, :, None, None]


class Dense(nn.Module):
    """A 1x1 convolution; weight-normalised where `gain` is given."""

    features: int
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel, bias = Kernel((), self.features, self.gain, name="own")(x.shape[-1], lambda k: x @ k)
        return x @ kernel + jnp.broadcast_to(bias, (*x.shape[:-1], self.features))


class RowConv(nn.Module):
    """A convolution over rows that are whole: kernel (rows, columns), columns centred.

    On an image [B, H, W, I] output row r sees rows r - rows + 1 .. r; with `above`, r - rows .. r - 1. Row by row it is
    given one row [B, 1, W, I]: row r, or with `above` row r - 1, and gives row r of the output.
    """

    features: int
    kernel: tuple[int, int]
    above: bool = False
    stride: int = 1
    scale: int = 1
    """Image rows to a row of the input."""
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Array, place: Place | None = None) -> Array:
        rows, columns = self.kernel
        side = columns // 2
        if place is None:
            x = jnp.pad(x, ((0, 0), (rows - 1 + self.above, 0), (0, 0), (0, 0)))[:, : x.shape[1] + rows - 1]
        else:
            lines = self.variable("lines", "rows", jnp.zeros, (len(x), rows, *x.shape[2:]), x.dtype)
            x = jnp.concatenate([lines.value[:, 1:], x], 1)
            x = lines.value = x if self.scale == 1 else jnp.where(place.on(self.scale), x, lines.value)

        def run(kernel: Array) -> Array:
            return convolve(x, kernel, (self.stride if place is None else 1, self.stride), ((0, 0), (side, side)))

        kernel, bias = Kernel(self.kernel, self.features, self.gain, name="own")(x.shape[-1], run)
        return run(kernel) + bias[None, None, None]


class Late(nn.Module):
    """Row by row: what it was given for the row before. On whole images: what it is given."""

    @nn.compact
    def __call__(self, x: Array, place: Place | None = None) -> Array:
        if place is None:
            return x
        kept = self.variable("lines", "late", jnp.zeros_like, x)
        before, kept.value = kept.value, x
        return before


class CausalConv(nn.Module):
    """A convolution over what raster order has passed: kernel (rows, columns), `left` columns of them left of the pixel.

    On an image [B, H, W, I] the output at (r, c) sees rows r - rows + 1 .. r and columns c - left .. c - left +
    columns - 1; of its own row, none right of the pixel, and with `delayed` not the pixel itself. Pixel by pixel it is
    given [B, 1, 1, I]: the features of the pixel, or with `delayed` of the pixel before it.
    """

    features: int
    kernel: tuple[int, int]
    left: int
    delayed: bool = False
    stride: int = 1
    scale: int = 1
    """Image rows (and columns) to a row (and column) of the input."""
    gain: float | None = None

    @nn.compact
    def __call__(self, x: Array, place: Place | None = None) -> Array:
        rows, columns = self.kernel
        right = columns - 1 - self.left
        mask = np.ones((rows, columns))
        mask[-1, max(self.left + 1 - self.delayed, 0) :] = 0
        masked = None if mask.all() else mask
        layer = Kernel(self.kernel, self.features, self.gain, name="own")
        if place is None:

            def run(kernel: Array) -> Array:
                return convolve(x, kernel, self.stride, ((rows - 1, 0), (self.left, right)))

            kernel, bias = layer(x.shape[-1], run, masked)
            return run(kernel) + bias[None, None, None]
        assert place.column is not None
        # The columns come first: a pixel is then one contiguous piece, and is written in place.
        width = place.width // self.scale + self.left + max(right, 0)
        window = self.variable(f"pixels_{self.scale}", "window", jnp.zeros, (width, rows, len(x), x.shape[-1]), x.dtype)
        column = place.column // self.scale
        start = (column + self.left - self.delayed, rows - 1, 0, 0)
        new = x[:, 0, 0][None, None]
        if self.scale > 1:  # between this layer's rows and columns, nothing is written
            new = jnp.where(place.on(self.scale), new, lax.dynamic_slice(window.value, start, new.shape))
        window.value = lax.dynamic_update_slice(window.value, new, start)
        seen = lax.dynamic_slice_in_dim(window.value, column, columns, 0)
        kernel, bias = layer(x.shape[-1], None, masked)
        return jnp.einsum("wrbi,rwio->bo", seen, kernel)[:, None, None] + bias[None, None, None]


def new_row(cache: Mapping[str, Any], row: Array) -> dict[str, Any]:
    """The cache as it must be when a row of the image begins: windows move up by a row where their layer's row ends."""

    def move(window: Array) -> Array:
        return jnp.concatenate([window[:, 1:], jnp.zeros_like(window[:, :1])], 1)

    moved = {}
    for name, tree in cache.items():
        if name.startswith("pixels_") and name != "pixels_last":
            scale = int(name.removeprefix("pixels_"))
            up = jax.tree.map(move, tree)
            tree = up if scale == 1 else jax.tree.map(lambda a, b, s=scale: jnp.where(row % s == 0, a, b), up, tree)
        moved[name] = tree
    return moved


def gate(x: Array, condition: Array | None = None) -> Array:
    """tanh of the first half of the channels times the sigmoid of the second, a condition [B, C] added to both."""
    x = x if condition is None else x + condition[:, None, None]
    a, b = jnp.split(x, 2, -1)
    return jnp.tanh(a) * nn.sigmoid(b)
