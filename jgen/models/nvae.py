"""NVAE: a deep hierarchical VAE of depthwise convolutions (Vahdat & Kautz 2020, arXiv:2007.03898).

The cells are those of the authors' `res_mbconv` (NVlabs/NVAE): plain residual ones in the encoder, with two 3x3 convolutions,
and inverted ones in the decoder, with a depthwise 5x5 convolution. The network gives raw means and log deviations; its caller
says how latents are drawn from them, as `jgen.objectives.nvae` does. Flows of `jgen.models.nvae_flow` then move the posteriors'
latents, which no flow does to the prior's.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.models.nvae_conv import UNIFORM, Conv
from jgen.models.nvae_flow import Flow
from jgen.nn import norm
from jgen.nn.precision import at_least_float32
from jgen.types import Array

BatchNorm = partial(norm.BatchNorm, momentum=0.05)
Raw = tuple[Array, Array]
"""Mean and log deviation of a normal, before they are clamped."""


class Group(NamedTuple):
    """A group of latents, as the decoder comes to it."""

    features: Array
    """[B, side, side, width]: all that the groups above say."""
    prior: Raw
    """Each [B, side, side, latents]."""
    residual: Raw | None
    """The posterior's, relative to the prior's; None without an image."""
    drawn: Array | None = None
    """[B, side, side, latents]: the posterior's draw before its flows; None where it has none."""
    latents: Array | None = None
    """[B, side, side, latents]: what the decoder sees, after the flows; None while they are not drawn."""


Draw = Callable[[int, Group], Array]
"""(which group, the group) -> its latents [B, side, side, latents]."""


class SqueezeExcite(nn.Module):
    """Channels times gates between 0 and 1 that their means over the image decide (Hu et al. 2018)."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = nn.relu(nn.Dense(max(x.shape[-1] // 16, 4), kernel_init=UNIFORM, name="down")(jnp.mean(x, (1, 2))))
        gates = nn.sigmoid(nn.Dense(x.shape[-1], kernel_init=UNIFORM, name="up")(h))
        return x * gates[:, None, None]


class DownSkip(nn.Module):
    """Half the side, `features` channels: a quarter of them from each pixel of 2x2."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x, quarter = nn.swish(x), self.features // 4
        widths = (quarter, quarter, quarter, self.features - 3 * quarter)
        corners = ((0, 0), (1, 1), (0, 1), (1, 0))
        return jnp.concatenate(
            [Conv(w, name=f"conv_{i + 1}")(x[:, r::2, c::2]) for i, (w, (r, c)) in enumerate(zip(widths, corners))], -1
        )


def upsampled(x: Array) -> Array:
    """Twice the side by bilinear interpolation whose corners are those of x (align_corners)."""
    for axis in (1, 2):
        n = x.shape[axis]
        at = np.arange(2 * n) * (n - 1) / (2 * n - 1)
        weights = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(n)[None])).astype(np.float32)
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(weights, x.dtype), ((axis,), (1,))), -1, axis)
    return x


def _repeated(x: Array) -> Array:
    return jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)


class EncoderCell(nn.Module):
    """Batch normalisation, swish and a 3x3 convolution, twice; down: at half the side and twice the width."""

    down: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        width, skip = (1 + self.down) * x.shape[-1], x
        if self.down:
            skip = DownSkip(width, name="skip")(x)
        for i, stride in enumerate((1 + self.down, 1)):
            x = nn.swish(BatchNorm(name=f"norm_{i}")(x, train))
            x = Conv(width, 3, stride, name=f"conv_{i}")(x)
        return skip + 0.1 * SqueezeExcite(name="se")(x)


class DecoderCell(nn.Module):
    """An inverted residual: wide, a depthwise 5x5 convolution, narrow; up: at twice the side and half the width."""

    expand: int = 6
    up: bool = False

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        hidden, skip = self.expand * x.shape[-1], x
        width = x.shape[-1] // (1 + self.up)
        if self.up:
            skip, x = Conv(width, bias=False, name="skip")(upsampled(x)), _repeated(x)
        x = BatchNorm(name="norm_0")(x, train)
        x = nn.swish(BatchNorm(name="norm_1")(Conv(hidden, plain=True, name="expand_conv")(x), train))
        x = Conv(hidden, 5, plain=True, depthwise=True, name="depthwise")(x)
        x = Conv(width, plain=True, name="project")(nn.swish(BatchNorm(name="norm_2")(x, train)))
        return skip + 0.1 * SqueezeExcite(name="se")(BatchNorm(name="norm_3")(x, train))


class NVAE(nn.Module):
    """Images [B, S, S, C] in [-1, 1] -> (outputs of the likelihood [B, S, S, K], its groups of latents from the top down).

    Outputs, priors and posteriors are float32 at least, whatever the features are.
    """

    outputs: int
    side: int
    channels: int = 128
    latents: int = 20
    groups: Sequence[int] = (30,)
    """Groups at each scale, from the largest to the smallest."""
    image_blocks: int = 1
    image_cells: int = 2
    encoder_cells: int = 2
    decoder_cells: int = 2
    flows: int = 0
    """Flows of each group's posterior (the authors' num_nf)."""

    def setup(self) -> None:
        scales = len(self.groups)
        width = self.channels * 2 ** (self.image_blocks + scales - 1)  # at the smallest scale
        self.stem = Conv(self.channels, 3)
        last = self.image_cells - 1
        self.pre = [EncoderCell(i == last) for _ in range(self.image_blocks) for i in range(self.image_cells)]
        self.encoder = [[EncoderCell() for _ in range(self.encoder_cells)] for _ in range(sum(self.groups))]
        self.down = [EncoderCell(True) for _ in range(scales - 1)]
        self.top = Conv(width)
        small = self.side // 2 ** (self.image_blocks + scales - 1)
        self.start = self.param("start", nn.initializers.uniform(1.0), (small, small, width))
        widths = [width // 2**s for s, count in enumerate(reversed(self.groups)) for _ in range(count)]
        self.posteriors = [Conv(2 * self.latents, 3) for _ in widths]
        self.flow = [[Flow() for _ in range(self.flows)] for _ in widths]
        self.combiners = [Conv(w) for w in widths[1:]]
        self.priors = [Conv(2 * self.latents) for _ in widths[1:]]
        self.decoder = [[DecoderCell() for _ in range(self.decoder_cells)] for _ in widths[1:]]
        self.joins = [Conv(w) for w in widths]
        self.up = [DecoderCell(up=True) for _ in range(scales - 1)]
        self.post = [DecoderCell(3, i == 0) for _ in range(self.image_blocks) for i in range(self.image_cells)]
        self.head = Conv(self.outputs, 3)

    def __call__(self, x: Array, draw: Draw, train: bool = False) -> tuple[Array, list[Group]]:
        """Latents that `draw` takes from the posteriors. train: batch normalisation by the batch, whose statistics move."""
        return self.decode(draw, len(x), self.encode(x, train), train)

    def encode(self, x: Array, train: bool = False) -> list[Array]:
        """The encoder's features for each group, from the top down."""
        x, features = self.stem(x), []
        for cell in self.pre:
            x = cell(x, train)
        cells = iter(self.encoder)
        for s, count in enumerate(self.groups):
            x = self.down[s - 1](x, train) if s else x
            for _ in range(count):
                for cell in next(cells):
                    x = cell(x, train)
                features.append(x)
        return [nn.elu(self.top(nn.elu(x))), *features[-2::-1]]

    def decode(
        self, draw: Draw, batch: int, encoded: Sequence[Array] | None = None, train: bool = False
    ) -> tuple[Array, list[Group]]:
        """From the top group down; without what `encode` gave, the groups have no posteriors."""
        x = jnp.broadcast_to(self.start[None], (batch, *self.start.shape))
        found, firsts = [], np.cumsum(self.groups[::-1])
        for k in range(sum(self.groups)):
            if k in firsts:
                x = self.up[list(firsts).index(k)](x, train)
            for cell in self.decoder[k - 1] if k else []:
                x = cell(x, train)
            group = self._group(k, x, None if encoded is None else encoded[k])
            found.append(self._with_latents(k, group, draw(k, group)))
            x = self.joins[k](jnp.concatenate([x, found[-1].latents.astype(x.dtype)], -1))
        for cell in self.post:
            x = cell(x, train)
        return at_least_float32(self.head(nn.elu(x))), found

    def _group(self, k: int, x: Array, encoded: Array | None) -> Group:
        zeros = jnp.zeros((*x.shape[:-1], self.latents))
        prior = _halves(self.priors[k - 1](nn.elu(x))) if k else (zeros, zeros)
        if encoded is None:
            return Group(x, prior, None)
        found = encoded + self.combiners[k - 1](x) if k else encoded
        return Group(x, prior, _halves(self.posteriors[k](found)))

    def _with_latents(self, k: int, group: Group, drawn: Array) -> Group:
        """A group with its latents, which flows move where they are the posterior's."""
        if group.residual is None or not self.flows:
            return group._replace(latents=drawn)
        latents = drawn
        for flow in self.flow[k]:
            latents = flow(latents, group.features.dtype)
        return group._replace(drawn=drawn, latents=latents)


def _halves(x: Array) -> Raw:
    mean, log_deviation = jnp.split(at_least_float32(x), 2, -1)
    return mean, log_deviation


def latent_shapes(net: NVAE) -> list[tuple[int, int, int]]:
    """The shape of every group's latents, from the top down."""
    sides = [net.side // 2 ** (net.image_blocks + s) for s, count in enumerate(net.groups) for _ in range(count)]
    return [(side, side, net.latents) for side in reversed(sides)]


def check_sides(net: NVAE) -> None:
    """Raises UserError where the image's side cannot be halved as often as the network does."""
    times = net.image_blocks + len(net.groups) - 1
    if not net.groups or net.side % 2**times:
        raise UserError(
            f"groups={tuple(net.groups)}, image_blocks={net.image_blocks}: a side of {net.side} must divide by {2**times}, "
            "and there must be a group"
        )
