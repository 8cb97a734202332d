"""NVAE: a deep hierarchical VAE of depthwise convolutions (Vahdat & Kautz 2020, arXiv:2007.03898).

The cells are those of the authors' `res_mbconv` (NVlabs/NVAE): plain residual ones in the encoder, with two 3x3 convolutions,
and inverted ones in the decoder, with a depthwise 5x5 convolution. The normalising flows of the posteriors are left out. The
network gives raw means and log deviations; its caller says how latents are drawn from them, as `jgen.objectives.nvae` does.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn import norm
from jgen.nn.conv import conv
from jgen.nn.dense import product
from jgen.nn.depthwise import depthwise
from jgen.nn.plain import convolve
from jgen.nn.precision import at_least_float32
from jgen.types import Array

UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's start of a layer: uniform within 1 over the root of its inputs."""
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


Draw = Callable[[int, Group], Array]
"""(which group, the group) -> its latents [B, side, side, latents]."""


def normalized_kernel(kernel: Array, log_norm: Array | None) -> Array:
    """A kernel [..., O] whose outputs have norms exp(log_norm) [O]; None leaves it as it is."""
    if log_norm is None:
        return kernel
    wide, log_norm = at_least_float32(kernel), at_least_float32(log_norm)
    size = jnp.sqrt(jnp.sum(jnp.square(wide), tuple(range(kernel.ndim - 1)), keepdims=True))
    return (jnp.exp(log_norm).reshape(*[1] * (kernel.ndim - 1), -1) * wide / (size + 1e-5)).astype(kernel.dtype)


class Conv(nn.Module):
    """Convolution with weight normalisation and a bias, or with neither (plain); zeros around."""

    features: int
    size: int = 1
    stride: int = 1
    plain: bool = False
    depthwise: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", UNIFORM, (self.size, self.size, 1 if self.depthwise else x.shape[-1], self.features))
        if not self.plain:
            kernel = normalized_kernel(kernel, self.param("log_norm", lambda _: _log_norm(kernel)))
        x = self._convolved(x, kernel)
        return x if self.plain else x + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]

    def _convolved(self, x: Array, kernel: Array) -> Array:
        rim = (self.size // 2, self.size // 2)
        if self.depthwise:
            return depthwise(x, kernel)
        if self.stride > 1:
            return convolve(x, kernel, self.stride, (rim, rim))
        return product(x, kernel[0, 0]) if self.size == 1 else conv(x, kernel, (rim, rim))


def _log_norm(kernel: Array) -> Array:
    return jnp.log(jnp.sqrt(jnp.sum(jnp.square(kernel), (0, 1, 2))) + 1e-2)


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
            skip, x = Conv(width, name="skip")(upsampled(x)), _repeated(x)
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
            found.append(self._group(k, x, None if encoded is None else encoded[k]))
            x = self.joins[k](jnp.concatenate([x, draw(k, found[-1]).astype(x.dtype)], -1))
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
