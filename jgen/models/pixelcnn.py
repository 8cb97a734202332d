"""PixelCNN and Gated PixelCNN.

van den Oord et al. 2016, "Pixel recurrent neural networks" (arXiv:1601.06759, section 3.5) and "Conditional image
generation with PixelCNN decoders" (arXiv:1606.05328). Colours of a pixel are not masked from each other: all are drawn
together. Both networks take images in [-1, 1], or with `codes` the indices of a codebook, and share three methods:

    net.apply(variables, x, label)                               # whole images [B, H, W, C] -> outputs [B, H, W, K]
    net.apply(variables, row above, place, label, method="row")  # what the rows above say of a row
    net.apply(variables, pixel before, context, place, label, method="pixel")  # [B, 1, 1, K]

The last two are what `jgen.samplers.autoregressive` decodes with.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.nn.causal import CausalConv, Dense, Late, Place, RowConv, gate
from jgen.types import Array

Context = Any
"""The context from the rows above: a tree of arrays [B, H, W, ...], or of one row of them."""


class Encoding(nn.Module):
    """Images as they are, or an embedding of codes; nothing where there is no pixel before."""

    codes: int = 0
    width: int = 64

    @nn.compact
    def __call__(self, x: Array, place: Place | None = None) -> Array:
        if self.codes:
            x = nn.Embed(self.codes, self.width, name="embed")(x[..., 0].astype(jnp.int32))
        return x if place is None else x * place.seen


class Head(nn.Module):
    """ReLU, 1x1, ReLU, 1x1."""

    hidden: int
    outputs: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return Dense(self.outputs, name="out")(nn.relu(Dense(self.hidden, name="hidden")(nn.relu(x))))


class Residual(nn.Module):
    """ReLU, 1x1, ReLU, 3x3 with the paper's mask B, ReLU, 1x1 (figure 5)."""

    features: int

    @nn.compact
    def __call__(self, x: Array, place: Place | None) -> Array:
        h = Dense(self.features, name="down")(nn.relu(x))
        h = CausalConv(self.features, (2, 3), 1, name="masked")(nn.relu(h), place)
        return Dense(x.shape[-1], name="up")(nn.relu(h))


class PixelCNN(nn.Module):
    """A 7x7 convolution with the paper's mask A, then residual blocks; 2 x `features` (the paper's h) channels between them."""

    outputs: int
    features: int = 32
    layers: int = 8
    hidden: int = 64
    classes: int = 0
    codes: int = 0
    twice: bool = False
    """Add the shortcut twice, x + (x + f(x)), as pytorch-generative does."""

    def setup(self) -> None:
        self.encode = Encoding(self.codes)
        # The masked 7x7 convolution in its two parts: three whole rows, and three pixels to the left.
        self.above = RowConv(2 * self.features, (3, 7), above=True)
        self.left = CausalConv(2 * self.features, (1, 3), 3, delayed=True)
        self.blocks = [Residual(self.features) for _ in range(self.layers)]
        self.head = Head(self.hidden, self.outputs)
        if self.classes:
            self.condition = nn.Embed(self.classes, 2 * self.features)

    def __call__(self, x: Array, label: Array | None = None, train: bool = False) -> Array:
        return self.pixel(x, self.above(self.encode(x)), None, label)

    def row(self, x: Array, place: Place, label: Array | None = None) -> Context:
        """The first layer's view of the rows above, given the row above [B, 1, W, C]."""
        return self.above(self.encode(x, place), place)

    def pixel(self, x: Array, context: Context, place: Place | None, label: Array | None = None) -> Array:
        check_label(self.classes, label)
        h = context + self.left(self.encode(x, place), place)
        if label is not None:
            h = h + self.condition(label)[:, None, None]
        for block in self.blocks:
            h = (2 if self.twice else 1) * h + block(h, place)
        return self.head(h)


class GatedLayer(nn.Module):
    """A layer of both stacks; the first one sees `kernel` pixels and not the pixel itself, and has no shortcut."""

    features: int
    kernel: int = 3
    first: bool = False

    def setup(self) -> None:
        k, c = self.kernel, self.features
        self.vertical_1xn = RowConv(c, (1, k))
        self.vertical_nx1 = RowConv(2 * c, (k // 2 + 1, 1), above=True)
        self.vertical_1x1, self.link, self.late = Dense(2 * c), Dense(2 * c), Late()
        self.horizontal_1xn = CausalConv(2 * c, (1, k // 2 + 1), k // 2 + self.first, delayed=self.first)
        self.residual, self.skip = Dense(c), Dense(c)

    def vertical(self, v: Array, place: Place | None, condition: Array | None) -> tuple[Array, Array]:
        """(vertical features for the next layer, link to the horizontal stack).

        The features of a row hold the row itself, so row by row they come a row late; the link holds rows above only.
        """
        wide = self.vertical_1xn(v)
        if place is not None:
            wide = wide * place.seen  # above the image there are zeros, not biases
        now = self.vertical_nx1(wide, place)
        return gate(self.late(now, place) + self.vertical_1x1(v), condition), self.link(now)

    def horizontal(self, h: Array, link: Array, place: Place | None, condition: Array | None) -> tuple[Array, Array]:
        """(horizontal features for the next layer, the layer's share of the output)."""
        out = gate(self.horizontal_1xn(h, place) + link, condition)
        return (0 if self.first else h) + self.residual(out), self.skip(out)


class GatedPixelCNN(nn.Module):
    """A vertical stack that sees all rows above and a horizontal one that sees the row to the left; gated, conditional."""

    outputs: int
    features: int = 32
    layers: int = 6
    """After the first."""
    hidden: int = 64
    classes: int = 0
    """Class-conditional: each layer's gates are shifted by an embedding of the label."""
    codes: int = 0

    def setup(self) -> None:
        self.encode = Encoding(self.codes)
        self.stack = [GatedLayer(self.features, 7, True), *(GatedLayer(self.features) for _ in range(self.layers))]
        self.head = Head(self.hidden, self.outputs)
        self.beneath = [Dense(2 * self.features) for _ in self.stack]
        if self.classes:
            self.condition = nn.Embed(self.classes, 2 * 2 * self.features * (1 + self.layers))

    def __call__(self, x: Array, label: Array | None = None, train: bool = False, *, beneath: Array | None = None) -> Array:
        """beneath [B, H, W, F]: features of every place that are known beforehand, such as those of coarser codes."""
        return self.pixel(x, self._links(x, None, label, beneath), None, label)

    def row(self, x: Array, place: Place, label: Array | None = None, *, beneath: Array | None = None) -> Context:
        """The links of every layer for a row, given the row above [B, 1, W, C]."""
        if beneath is not None:
            beneath = lax.dynamic_slice_in_dim(beneath, place.row, 1, 1)
        return self._links(x, place, label, beneath)

    def pixel(self, x: Array, context: Context, place: Place | None, label: Array | None = None) -> Array:
        """Outputs of a pixel, given the pixel before it [B, 1, 1, C] and the links at it; or of whole images."""
        conditions, h, skips = self._conditions(label), self.encode(x, place), []
        for layer, link, (_, condition) in zip(self.stack, context, conditions):
            h, skip = layer.horizontal(h, link, place, condition)
            skips.append(skip)
        return self.head(functools.reduce(jnp.add, skips))

    def _links(self, x: Array, place: Place | None, label: Array | None, beneath: Array | None) -> list[Array]:
        v, links = self.encode(x, place), []
        for i, (layer, (condition, _)) in enumerate(zip(self.stack, self._conditions(label))):
            v, link = layer.vertical(v, place, condition)
            links.append(link if beneath is None else link + self.beneath[i](beneath))
        return links

    def _conditions(self, label: Array | None) -> list[tuple[Any, Any]]:
        check_label(self.classes, label)
        if label is None:
            return [(None, None)] * (1 + self.layers)
        parts = jnp.split(self.condition(label), 2 * (1 + self.layers), -1)
        return list(zip(parts[::2], parts[1::2]))


def check_label(classes: int, label: Array | None) -> None:
    """Raises UserError for a label without classes, or classes without one."""
    if (label is None) == bool(classes):
        raise UserError(f"label={'none' if label is None else 'given'}: this network has {classes} classes")
