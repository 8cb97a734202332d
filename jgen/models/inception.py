"""Inception-v3 (Szegedy et al. 2015, arXiv:1512.00567) as FID uses it: the network of 2015-12-05 that TensorFlow shipped.

It differs from torchvision's in three places, as in pytorch-fid, whose names and weight file it takes: average pooling
leaves the padding out, the last block pools by maximum, and there are 1,008 classes.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jgen.nn.plain import Conv
from jgen.types import Array

Pair = tuple[int, int]


class BasicConv2d(nn.Module):
    """Convolution without bias, batch normalisation by stored statistics, ReLU."""

    features: int
    kernel: Pair = (1, 1)
    stride: int = 1
    padding: Pair = (0, 0)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        padding = [(p, p) for p in self.padding]
        x = Conv(self.features, self.kernel, self.stride, padding=padding, use_bias=False, name="conv")(x)
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        scale, bias, mean, var = (
            self.param(f"bn_{name}", init, (self.features,))
            for name, init in (("weight", ones), ("bias", zeros), ("running_mean", zeros), ("running_var", ones))
        )
        factor = scale * lax.rsqrt(var + 1e-3)
        return nn.relu(x * factor[None, None, None] + (bias - mean * factor)[None, None, None])


Branch = Sequence[tuple[str, int, Pair, int]]
"""Convolutions one after another: (name, channels, kernel, stride); stride 2 has no padding, others keep the size."""


def _run(x: Array, branch: Branch) -> Array:
    for name, features, kernel, stride in branch:
        padding = (0, 0) if stride == 2 else (kernel[0] // 2, kernel[1] // 2)
        x = BasicConv2d(features, kernel, stride, padding, name=name)(x)
    return x


def _one(name: str, features: int) -> tuple[str, int, Pair, int]:
    return name, features, (1, 1), 1


def _average(x: Array) -> Array:
    return nn.avg_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)), count_include_pad=False)  # pyright: ignore


def _maximum(x: Array) -> Array:
    return nn.max_pool(x, (3, 3), (1, 1), ((1, 1), (1, 1)))  # pyright: ignore


class BlockA(nn.Module):
    """35x35."""

    pool_features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return jnp.concatenate(
            [
                _run(x, [_one("branch1x1", 64)]),
                _run(x, [_one("branch5x5_1", 48), ("branch5x5_2", 64, (5, 5), 1)]),
                _run(x, [_one("branch3x3dbl_1", 64), *((f"branch3x3dbl_{i}", 96, (3, 3), 1) for i in (2, 3))]),
                _run(_average(x), [_one("branch_pool", self.pool_features)]),
            ],
            -1,
        )


class BlockB(nn.Module):
    """35x35 -> 17x17."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        double = [_one("branch3x3dbl_1", 64), ("branch3x3dbl_2", 96, (3, 3), 1), ("branch3x3dbl_3", 96, (3, 3), 2)]
        pooled = nn.max_pool(x, (3, 3), (2, 2))
        return jnp.concatenate([_run(x, [("branch3x3", 384, (3, 3), 2)]), _run(x, double), pooled], -1)


class BlockC(nn.Module):
    """17x17, 7x7 convolutions in two halves."""

    middle: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        m, wide, tall = self.middle, (1, 7), (7, 1)
        seven = [_one("branch7x7_1", m), ("branch7x7_2", m, wide, 1), ("branch7x7_3", 192, tall, 1)]
        double = [
            _one("branch7x7dbl_1", m),
            *((f"branch7x7dbl_{i}", m, kernel, 1) for i, kernel in ((2, tall), (3, wide), (4, tall))),
            ("branch7x7dbl_5", 192, wide, 1),
        ]
        return jnp.concatenate(
            [
                _run(x, [_one("branch1x1", 192)]),
                _run(x, seven),
                _run(x, double),
                _run(_average(x), [_one("branch_pool", 192)]),
            ],
            -1,
        )


class BlockD(nn.Module):
    """17x17 -> 8x8."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        seven = [
            _one("branch7x7x3_1", 192),
            ("branch7x7x3_2", 192, (1, 7), 1),
            ("branch7x7x3_3", 192, (7, 1), 1),
            ("branch7x7x3_4", 192, (3, 3), 2),
        ]
        three = [_one("branch3x3_1", 192), ("branch3x3_2", 320, (3, 3), 2)]
        return jnp.concatenate([_run(x, three), _run(x, seven), nn.max_pool(x, (3, 3), (2, 2))], -1)


class BlockE(nn.Module):
    """8x8; the branches fan out at their ends."""

    maximum: bool = False
    """Pool by maximum: the last block of the FID network."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        three = _run(x, [_one("branch3x3_1", 384)])
        double = _run(x, [_one("branch3x3dbl_1", 448), ("branch3x3dbl_2", 384, (3, 3), 1)])
        pooled = (_maximum if self.maximum else _average)(x)
        return jnp.concatenate(
            [
                _run(x, [_one("branch1x1", 320)]),
                _run(three, [("branch3x3_2a", 384, (1, 3), 1)]),
                _run(three, [("branch3x3_2b", 384, (3, 1), 1)]),
                _run(double, [("branch3x3dbl_3a", 384, (1, 3), 1)]),
                _run(double, [("branch3x3dbl_3b", 384, (3, 1), 1)]),
                _run(pooled, [_one("branch_pool", 192)]),
            ],
            -1,
        )


class InceptionV3(nn.Module):
    """Images [B, 299, 299, 3] in [-1, 1] -> (features [B, 2048], logits [B, classes])."""

    classes: int = 1008

    @nn.compact
    def __call__(self, x: Array) -> tuple[Array, Array]:
        x = BasicConv2d(32, (3, 3), 2, name="Conv2d_1a_3x3")(x)
        x = BasicConv2d(32, (3, 3), name="Conv2d_2a_3x3")(x)
        x = BasicConv2d(64, (3, 3), padding=(1, 1), name="Conv2d_2b_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        x = BasicConv2d(80, name="Conv2d_3b_1x1")(x)
        x = BasicConv2d(192, (3, 3), name="Conv2d_4a_3x3")(x)
        x = nn.max_pool(x, (3, 3), (2, 2))
        for name, features in (("Mixed_5b", 32), ("Mixed_5c", 64), ("Mixed_5d", 64)):
            x = BlockA(features, name=name)(x)
        x = BlockB(name="Mixed_6a")(x)
        for name, middle in (("Mixed_6b", 128), ("Mixed_6c", 160), ("Mixed_6d", 160), ("Mixed_6e", 192)):
            x = BlockC(middle, name=name)(x)
        x = BlockD(name="Mixed_7a")(x)
        x = BlockE(name="Mixed_7b")(x)
        x = BlockE(maximum=True, name="Mixed_7c")(x)
        features = jnp.mean(x, (1, 2))
        return features, nn.Dense(self.classes, name="fc")(features)
