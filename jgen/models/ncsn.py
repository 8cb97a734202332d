"""The score networks of Song & Ermon: RefineNets with InstanceNorm++.

NCSN (2019, arXiv:1907.05600): every norm is conditioned on the index of the noise level, pools are means. NCSNv2 (2020,
arXiv:2006.09011): nothing is conditioned on the level, the output is divided by sigma, pools are maxima. Four to six residual
levels, the last two dilated in place of smaller, and as many refining blocks on the way back (Lin et al. 2017). Submodules
carry the names of the authors' code (`refine1.adapt_convs.0.1_1_conv` is `refine1/adapt_convs_0/1_1_conv`).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.models.ncsn_norm import LevelNorm, Normalization
from jgen.nn.nonlinearity import nonlinearity
from jgen.nn.plain import Conv
from jgen.types import Array

INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default."""


def resize_aligned(x: Array, shape: tuple[int, int]) -> Array:
    """Bilinear resize [B, H, W, C] -> [B, *shape, C] in which the corner pixels keep their places."""

    def weights(old: int, new: int) -> Array:
        at = np.linspace(0, old - 1, new)
        return jnp.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)[None])), jnp.float32)

    if x.shape[1:3] == shape:
        return x
    x = jnp.einsum("ih,bhwc->biwc", weights(x.shape[1], shape[0]), x)
    return jnp.einsum("jw,biwc->bijc", weights(x.shape[2], shape[1]), x)


@dataclasses.dataclass(frozen=True)
class Style:
    """Settings that the blocks of a network share."""

    levels: int = 0
    """Noise levels that the norms are conditioned on; 0 for none."""
    nonlinearity: str = "elu"
    normalization: Normalization = "InstanceNorm++"
    inner_norms: bool = False
    """The refining blocks have norms too, and pool means in place of maxima, as in version 1."""

    def act(self, x: Array) -> Array:
        return nonlinearity(self.nonlinearity)(x)

    def norm(self, name: str, epsilon: float = 1e-5) -> LevelNorm:
        return LevelNorm(self.levels, self.normalization, epsilon, name=name)

    def inner(self, x: Array, label: Array | None, name: str) -> Array:
        """The norm of a refining block, where there is one."""
        return self.norm(name)(x, label) if self.inner_norms else x


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 square."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, (self.size, self.size), kernel_init=INIT, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class ResidualBlock(nn.Module):
    """norm, act, conv, norm, act, conv; `down` pools to half the size, or with a dilation keeps it and dilates."""

    features: int
    style: Style
    down: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        def conv(features: int, name: str) -> Callable[[Array], Array]:
            return Conv(features, (3, 3), kernel_dilation=self.dilation, kernel_init=INIT, name=name)

        style, pooled = self.style, self.down and self.dilation == 1
        width = x.shape[-1] if self.down else self.features
        h = conv(width, "conv1")(style.act(style.norm("normalize1")(x, label)))
        h = style.act(style.norm("normalize2")(h, label))
        if pooled:
            h, x = ConvMeanPool(self.features, 3, name="conv2")(h), ConvMeanPool(self.features, 1, name="shortcut")(x)
        else:
            h = conv(self.features, "conv2")(h)
            if self.down or x.shape[-1] != self.features:
                x = conv(self.features, "shortcut")(x)
        return x + h


class Refine(nn.Module):
    """A RefineNet block: residual units on every input, their fusion at one size, chained pooling, residual units."""

    features: int
    style: Style
    last: bool = False

    @nn.compact
    def __call__(self, inputs: Sequence[Array], label: Array | None, shape: tuple[int, int]) -> Array:
        adapted = [Units(2, self.style, name=f"adapt_convs_{i}")(x, label) for i, x in enumerate(inputs)]
        x = adapted[0]
        if len(adapted) > 1:
            x = Fusion(self.features, self.style, name="msf")(adapted, label, shape)
        x = ChainedPool(self.style, name="crp")(x, label)
        return Units(3 if self.last else 1, self.style, name="output_convs")(x, label)


class Units(nn.Module):
    """Residual units of two convolutions without bias."""

    units: int
    style: Style

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        for i in range(self.units):
            before = x
            for j in range(2):
                at = f"{i + 1}_{j + 1}"
                x = self.style.act(self.style.inner(x, label, f"{at}_norm"))
                x = Conv(x.shape[-1], (3, 3), use_bias=False, kernel_init=INIT, name=f"{at}_conv")(x)
            x = x + before
        return x


class Fusion(nn.Module):
    """The sum of all inputs, each convolved and resized to one shape."""

    features: int
    style: Style

    @nn.compact
    def __call__(self, inputs: Sequence[Array], label: Array | None, shape: tuple[int, int]) -> Array:
        total = 0.0
        for i, x in enumerate(inputs):
            x = self.style.inner(x, label, f"norms_{i}")
            x = Conv(self.features, (3, 3), kernel_init=INIT, name=f"convs_{i}")(x)
            total = total + resize_aligned(x, shape)
        return jnp.asarray(total)


class ChainedPool(nn.Module):
    """Two stages of 5x5 pooling and convolution, each added to the sum so far."""

    style: Style

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        x = path = self.style.act(x)
        pool = nn.avg_pool if self.style.inner_norms else nn.max_pool
        for i in range(2):
            path = pool(self.style.inner(path, label, f"norms_{i}"), (5, 5), (1, 1), "SAME")
            path = Conv(x.shape[-1], (3, 3), use_bias=False, kernel_init=INIT, name=f"convs_{i}")(path)
            x = x + path
        return x


Depth = Literal["", "deeper", "deepest"]
LEVELS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "": (("1", 1, 1), ("2", 2, 1), ("3", 2, 2), ("4", 2, 4)),
    "deeper": (("1", 1, 1), ("2", 2, 1), ("3", 2, 1), ("4", 4, 2), ("5", 4, 4)),
    "deepest": (("1", 1, 1), ("2", 2, 1), ("3", 2, 1), ("31", 2, 1), ("4", 4, 2), ("5", 4, 4)),
}
"""{depth: (name, width as a multiple of `channels`, dilation) of every residual level}. All but the first that are not dilated
halve the size. The deeper ones are the authors' for LSUN and FFHQ."""
REFINES: dict[str, tuple[str, ...]] = {
    "": ("1", "2", "3", "4"),
    "deeper": ("1", "2", "3", "4", "5"),
    "deepest": ("1", "2", "31", "3", "4", "5"),
}
"""{depth: names of the refining blocks, from the smallest map up}."""


class _RefineNet(nn.Module):
    """The RefineNet that both versions share."""

    channels: int = 128
    out_channels: int = 3
    rescale: bool = True
    """Images are in [0, 1] and are mapped to [-1, 1] first."""
    depth: Depth = ""
    nonlinearity: str = "elu"
    normalization: Normalization = "InstanceNorm++"
    last_epsilon: float = 1e-5
    """Epsilon of the last norm, where it is InstanceNorm: the authors' code of version 2 has the number of levels there."""

    def _net(self, x: Array, label: Array | None, style: Style) -> Array:
        if self.depth not in LEVELS:
            raise UserError(f"depth={self.depth}: must be one of {', '.join(map(repr, LEVELS))}")
        levels = LEVELS[self.depth]
        multiple = 2 ** sum(dilation == 1 for _, _, dilation in levels[1:])
        if x.shape[1] % multiple or x.shape[2] % multiple:
            raise UserError(f"image of {x.shape[1]}x{x.shape[2]}: sides must be {SIDES[multiple]}")
        h = Conv(self.channels, (3, 3), kernel_init=INIT, name="begin_conv")(2 * x - 1 if self.rescale else x)
        maps, widths = [], [multiplier * self.channels for _, multiplier, _ in levels]
        for (name, _, dilation), width in zip(levels, widths):
            # The second block of a dilated level is dilated too.
            h = ResidualBlock(width, style, name != "1", dilation, name=f"res{name}_0")(h, label)
            h = ResidualBlock(width, style, False, dilation, name=f"res{name}_1")(h, label)
            maps.append(h)
        last = len(maps) - 1
        for i, name in enumerate(REFINES[self.depth]):
            # Every block has the width of the map that the next one takes besides.
            of = last - i
            inputs = [maps[of]] if i == 0 else [maps[of], h]
            block = Refine(widths[max(of - 1, 0)], style, of == 0, name=f"refine{name}")
            h = block(inputs, label, maps[of].shape[1:3])
        h = style.act(style.norm("normalizer", self.last_epsilon)(h, label))
        return Conv(self.out_channels, (3, 3), kernel_init=INIT, name="end_conv")(h)


SIDES = {2: "even", 4: "multiples of 4", 8: "multiples of 8"}


class NCSN(_RefineNet):
    """Version 1: x [B, H, W, C], label int [B] (the index of a level, noisiest first) -> score [B, H, W, C].

    Raises UserError for sides that do not halve evenly, and for a depth, nonlinearity or normalization that is not known.
    """

    levels: int = 10

    @nn.compact
    def __call__(self, x: Array, label: Array) -> Array:
        return self._net(x, label, Style(self.levels, self.nonlinearity, self.normalization, True))


class NCSNv2(_RefineNet):
    """Version 2: x [B, H, W, C], sigma [B] -> score [B, H, W, C]. Raises UserError as `NCSN`."""

    @nn.compact
    def __call__(self, x: Array, sigma: Array) -> Array:
        return self._net(x, None, Style(0, self.nonlinearity, self.normalization)) / expand_dims_like(sigma, x)
