"""The score networks of Song & Ermon: RefineNets with InstanceNorm++.

NCSN (2019, arXiv:1907.05600): every norm is conditioned on the index of the noise level, pools are means. NCSNv2 (2020,
arXiv:2006.09011): nothing is conditioned on the level, the output is divided by sigma, pools are maxima. Four residual levels,
the later two dilated in place of smaller, and four refining blocks on the way back (Lin et al. 2017). Submodules carry the
names of the authors' code (`refine1.adapt_convs.0.1_1_conv` is `refine1/adapt_convs_0/1_1_conv`).
"""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.types import Array

Dtype = jnp.dtype | None
INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""PyTorch's default."""


def near_one(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    return 1 + nn.initializers.normal(0.02)(key, shape, dtype)


def gains(key: Array, shape: Sequence[int], dtype: jnp.dtype = jnp.float32) -> Array:
    """Rows [gamma, alpha, beta]: the first two near 1, the last 0."""
    third = shape[1] // 3
    return jnp.concatenate([near_one(key, (shape[0], 2 * third), dtype), jnp.zeros((shape[0], third), dtype)], 1)


class InstanceNormPlus(nn.Module):
    """InstanceNorm++: instance norm plus alpha times the z-score of each channel's mean among the image's channels.

    The channel means are scaled by their unbiased variance, the pixels by their biased one, as in the authors' code.
    levels: with L of them, each has its own gamma, alpha and beta and is chosen by `label` int [B].
    """

    levels: int = 0

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> Array:
        channels = x.shape[-1]
        if self.levels:
            rows = nn.Embed(self.levels, 3 * channels, embedding_init=gains, name="embed")(label)
            gamma, alpha, beta = jnp.split(rows, 3, -1)
        else:
            gamma, alpha = (self.param(n, near_one, (channels,))[None] for n in ("gamma", "alpha"))
            beta = self.param("beta", nn.initializers.zeros, (channels,))[None]
        x = x.astype(jnp.float32)
        means = jnp.mean(x, (1, 2))
        spread = jnp.mean(jnp.square(x - means[:, None, None]), (1, 2))
        centred = means - jnp.mean(means, -1, keepdims=True)
        scores = centred / jnp.sqrt(jnp.sum(jnp.square(centred), -1, keepdims=True) / max(channels - 1, 1) + 1e-5)
        gain = gamma / jnp.sqrt(spread + 1e-5)
        shift = gamma * alpha * scores + beta - means * gain
        return x * gain[:, None, None] + shift[:, None, None]


def resize_aligned(x: Array, shape: tuple[int, int]) -> Array:
    """Bilinear resize [B, H, W, C] -> [B, *shape, C] in which the corner pixels keep their places."""

    def weights(old: int, new: int) -> Array:
        at = np.linspace(0, old - 1, new)
        return jnp.asarray(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(old)[None])), jnp.float32)

    if x.shape[1:3] == shape:
        return x
    x = jnp.einsum("ih,bhwc->biwc", weights(x.shape[1], shape[0]), x)
    return jnp.einsum("jw,biwc->bijc", weights(x.shape[2], shape[1]), x)


class ConvMeanPool(nn.Module):
    """A convolution, then the mean of each 2x2 square."""

    features: int
    size: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = nn.Conv(self.features, (self.size, self.size), kernel_init=INIT, name="conv")(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


class ResidualBlock(nn.Module):
    """norm, ELU, conv, norm, ELU, conv; `down` pools to half the size, or with a dilation keeps it and dilates."""

    features: int
    levels: int
    down: bool = False
    dilation: int = 1

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        def conv(features: int, name: str) -> Callable[[Array], Array]:
            return nn.Conv(features, (3, 3), kernel_dilation=self.dilation, kernel_init=INIT, name=name)

        pooled = self.down and self.dilation == 1
        width = x.shape[-1] if self.down else self.features
        h = conv(width, "conv1")(nn.elu(InstanceNormPlus(self.levels, name="normalize1")(x, label)))
        h = nn.elu(InstanceNormPlus(self.levels, name="normalize2")(h, label))
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
    levels: int
    """Noise levels that the norms are conditioned on; 0 for none."""
    mean_pool: bool
    last: bool = False

    def _norm(self, x: Array, label: Array | None, name: str) -> Array:
        return InstanceNormPlus(self.levels, name=name)(x, label) if self.levels else x

    @nn.compact
    def __call__(self, inputs: Sequence[Array], label: Array | None, shape: tuple[int, int]) -> Array:
        adapted = [Units(2, self.levels, name=f"adapt_convs_{i}")(x, label) for i, x in enumerate(inputs)]
        x = adapted[0]
        if len(adapted) > 1:
            x = Fusion(self.features, self.levels, name="msf")(adapted, label, shape)
        x = ChainedPool(self.levels, self.mean_pool, name="crp")(x, label)
        return Units(3 if self.last else 1, self.levels, name="output_convs")(x, label)


class Units(nn.Module):
    """Residual units of two convolutions without bias."""

    units: int
    levels: int

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        for i in range(self.units):
            before = x
            for j in range(2):
                at = f"{i + 1}_{j + 1}"
                if self.levels:
                    x = InstanceNormPlus(self.levels, name=f"{at}_norm")(x, label)
                x = nn.Conv(x.shape[-1], (3, 3), use_bias=False, kernel_init=INIT, name=f"{at}_conv")(nn.elu(x))
            x = x + before
        return x


class Fusion(nn.Module):
    """The sum of all inputs, each convolved and resized to one shape."""

    features: int
    levels: int

    @nn.compact
    def __call__(self, inputs: Sequence[Array], label: Array | None, shape: tuple[int, int]) -> Array:
        total = 0.0
        for i, x in enumerate(inputs):
            if self.levels:
                x = InstanceNormPlus(self.levels, name=f"norms_{i}")(x, label)
            x = nn.Conv(self.features, (3, 3), kernel_init=INIT, name=f"convs_{i}")(x)
            total = total + resize_aligned(x, shape)
        return jnp.asarray(total)


class ChainedPool(nn.Module):
    """Two stages of 5x5 pooling and convolution, each added to the sum so far."""

    levels: int
    mean_pool: bool

    @nn.compact
    def __call__(self, x: Array, label: Array | None) -> Array:
        x = path = nn.elu(x)
        pool = nn.avg_pool if self.mean_pool else nn.max_pool
        for i in range(2):
            if self.levels:
                path = InstanceNormPlus(self.levels, name=f"norms_{i}")(path, label)
            path = pool(path, (5, 5), (1, 1), "SAME")
            path = nn.Conv(x.shape[-1], (3, 3), use_bias=False, kernel_init=INIT, name=f"convs_{i}")(path)
            x = x + path
        return x


class _RefineNet(nn.Module):
    """The RefineNet that both versions share."""

    channels: int = 128
    out_channels: int = 3
    rescale: bool = True
    """Images are in [0, 1] and are mapped to [-1, 1] first."""

    def _net(self, x: Array, label: Array | None, levels: int, v1: bool) -> Array:
        if x.shape[1] % 2 or x.shape[2] % 2:
            raise UserError(f"image of {x.shape[1]}x{x.shape[2]}: the network needs even sides")
        c = self.channels
        inner = levels if v1 else 0
        h = nn.Conv(c, (3, 3), kernel_init=INIT, name="begin_conv")(2 * x - 1 if self.rescale else x)
        maps = []
        for i, (width, dilation) in enumerate(((c, 1), (2 * c, 1), (2 * c, 2), (2 * c, 4)), start=1):
            # The second block of a dilated level is dilated too.
            h = ResidualBlock(width, levels, i > 1, dilation, name=f"res{i}_0")(h, label)
            h = ResidualBlock(width, levels, False, dilation, name=f"res{i}_1")(h, label)
            maps.append(h)
        h = Refine(2 * c, inner, v1, name="refine1")([maps[3]], label, maps[3].shape[1:3])
        for i, (of, width) in enumerate(((2, 2 * c), (1, c), (0, c)), start=2):
            h = Refine(width, inner, v1, i == 4, name=f"refine{i}")([maps[of], h], label, maps[of].shape[1:3])
        h = nn.elu(InstanceNormPlus(levels, name="normalizer")(h, label))
        return nn.Conv(self.out_channels, (3, 3), kernel_init=INIT, name="end_conv")(h)


class NCSN(_RefineNet):
    """Version 1: x [B, H, W, C], label int [B] (the index of a level, noisiest first) -> score [B, H, W, C]."""

    levels: int = 10

    @nn.compact
    def __call__(self, x: Array, label: Array) -> Array:
        return self._net(x, label, self.levels, True)


class NCSNv2(_RefineNet):
    """Version 2: x [B, H, W, C], sigma [B] -> score [B, H, W, C]."""

    @nn.compact
    def __call__(self, x: Array, sigma: Array) -> Array:
        return self._net(x, None, 0, False) / expand_dims_like(sigma, x)
