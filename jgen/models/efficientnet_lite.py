"""EfficientNet-Lite0 (TensorFlow's Lite variant of Tan & Le 2019, arXiv:1905.11946): no squeeze-and-excitation, ReLU6.

A frozen feature network: its batch norms are folded into the convolutions, so that a layer is a kernel and a bias.
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.depthwise import Depthwise, even_padding
from jgen.nn.plain import Conv
from jgen.types import Array


class Stage(NamedTuple):
    """Blocks of one width; the first has the stride."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    width: int


LITE0 = (
    Stage(1, 3, 1, 1, 16), Stage(2, 3, 2, 6, 24), Stage(2, 5, 2, 6, 40), Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112), Stage(4, 5, 2, 6, 192), Stage(1, 3, 1, 6, 320),
)  # fmt: skip
TAPS = (2, 4, 10, 15)
"""Blocks whose outputs are the four feature maps of Projected GAN: 24, 40, 112 and 320 channels at 1/4 to 1/32 of the side."""


class Features(NamedTuple):
    """The network's outputs for images [B, H, W, 3]; those that are not used are not computed under jit."""

    taps: tuple[Array, ...]
    """Outputs of the blocks in `TAPS` [B, h, w, C]."""
    pooled: Array
    """Spatial mean of the last block [B, 320]."""
    head: Array
    """Spatial mean behind the head's convolution and ReLU6 [B, 1280]."""
    logits: Array
    """ImageNet's classes [B, 1000]."""


class EfficientNetLite(nn.Module):
    """Images [B, H, W, 3] as (level - 127) / 128, levels 0..255 -> `Features`; any side of 32 and more.

    Padding is TensorFlow's: one more at the end where the stride is 2 and the side even.
    """

    stages: Sequence[Stage] = LITE0
    taps: Sequence[int] = TAPS
    classes: int = 1000
    head: bool = True
    """Without, there are the taps and their pooled features alone."""
    even: bool = False
    """Pad odd sides as even ones, as efficientnet-lite-pytorch does, whose padding is that of images of 224 pixels."""

    @nn.compact
    def __call__(self, x: Array) -> Features:
        around = [even_padding(side, 3, 2) for side in x.shape[1:3]] if self.even else "SAME"
        x = _relu6(Conv(32, (3, 3), 2, around, name="stem")(x))
        found, index = [], 0
        for stage in self.stages:
            for i in range(stage.blocks):
                x = _Block(stage._replace(stride=stage.stride if i == 0 else 1), self.even, name=f"block_{index}")(x)
                if index in self.taps:
                    found.append(x)
                index += 1
        if not self.head:
            nothing = jnp.zeros((len(x), 0), x.dtype)
            return Features(tuple(found), jnp.mean(x, (1, 2)), nothing, nothing)
        head = jnp.mean(_relu6(Conv(1280, (1, 1), name="head")(x)), (1, 2))
        return Features(tuple(found), jnp.mean(x, (1, 2)), head, nn.Dense(self.classes, name="classifier")(head))


class _Block(nn.Module):
    """Inverted residual: widen by 1x1, depthwise convolution, narrow by 1x1 without an activation; a sum where shapes agree."""

    stage: Stage
    even: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        stage, before = self.stage, x
        wide = x.shape[-1] * stage.expansion
        if stage.expansion > 1:
            x = _relu6(Conv(wide, (1, 1), name="expand")(x))
        x = _relu6(Depthwise(stage.kernel, stage.stride, self.even and stage.stride > 1, name="depthwise")(x))
        x = Conv(stage.width, (1, 1), name="project")(x)
        return x + before if x.shape == before.shape else x


def _relu6(x: Array) -> Array:
    return jnp.clip(x, 0, 6)
