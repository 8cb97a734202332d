"""A small residual classifier: the feature network of jgen's own scores, and the noisy classifier of guidance.

Residual blocks after He et al. 2015 (arXiv:1512.03385), pre-activation, with group normalisation so that a single
image gives the same features as a batch; a time, where there is one, scales and shifts each block (Dhariwal & Nichol
2021, arXiv:2105.05233).
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.conv import Conv3x3
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm
from jgen.nn.precision import at_least_float32
from jgen.types import Array

GROUPS = 8
"""Groups of every norm, so that widths are multiples of it."""


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut."""

    features: int

    @nn.compact
    def __call__(self, x: Array, embedding: Array | None) -> Array:
        shortcut = x if x.shape[-1] == self.features else nn.Dense(self.features, name="shortcut")(x)
        x = Conv3x3(self.features, name="conv1")(nn.relu(GroupNorm(GROUPS, name="norm1")(x)))
        x = GroupNorm(GROUPS, name="norm2")(x)
        if embedding is not None:
            scale, shift = jnp.split(nn.Dense(2 * self.features, name="time")(embedding)[:, None, None], 2, -1)
            x = x * (1 + scale) + shift
        return shortcut + Conv3x3(self.features, name="conv2", kernel_init=nn.initializers.zeros)(nn.relu(x))


class CNN(nn.Module):
    """Images [B, H, W, C] in [-1, 1] (and times t [B]) -> (features [B, channels[-1]], logits [B, classes])."""

    classes: int
    channels: Sequence[int] = (32, 64, 96)
    """Width of each level; each but the first halves the resolution."""
    stride: int = 2
    """Stride of the first convolution."""
    timed: bool = False
    """Takes noisy images and their times."""
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, t: Array | None = None, train: bool = False) -> tuple[Array, Array]:
        embedding = None
        if self.timed:
            if t is None:
                raise UserError("t: this classifier was made for noisy images, and needs their times")
            embedding = nn.silu(nn.Dense(4 * self.channels[0], name="time")(timestep_embedding(t, self.channels[0])))
        x = Conv3x3(self.channels[0], self.stride, name="stem")(x)
        for i, width in enumerate(self.channels):
            if i:
                x = nn.max_pool(x, (2, 2), (2, 2), "SAME")
            x = Block(width, name=f"block_{i}")(x, embedding)
        features = jnp.mean(at_least_float32(nn.relu(GroupNorm(GROUPS, name="norm")(x))), (1, 2))
        kept = nn.Dropout(self.dropout, deterministic=not train)(features)
        return features, nn.Dense(self.classes, name="head")(kept)
