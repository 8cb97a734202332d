"""Encoders of images into the styles of a generator: pSp (Richardson et al. 2020, arXiv:2008.00951) and e4e.

e4e (Tov et al. 2021, arXiv:2102.02766) has pSp's network, whose rows it reads as one style and a delta for each layer. Sizes
follow the images and the generator: the authors' are for images of 256 pixels and 18 rows of 512 numbers.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from jgen.models.irse import Trunk
from jgen.nn.equalized import Dense, leaky_relu
from jgen.nn.norm import BatchNorm
from jgen.nn.plain import Conv
from jgen.nn.warp import along, corners_aligned, pooling
from jgen.types import Array


class MapToStyle(nn.Module):
    """A feature map [B, H, W, C] -> a style [B, features]: halved until one pixel is left (pSp's map2style)."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i in range(max((max(x.shape[1:3]) - 1).bit_length(), 1)):
            x = leaky_relu(Conv(self.features, (3, 3), 2, padding=1, name=f"conv_{i}")(x), 0.01)
        return Dense(self.features, name="linear")(x[:, 0, 0])


def upsample_add(coarse: Array, fine: Array) -> Array:
    """The coarse map enlarged to the size of the fine one, corners aligned, and the fine one."""
    rows, columns = (corners_aligned(a, b) for a, b in zip(coarse.shape[1:3], fine.shape[1:3]))
    return along(coarse, rows, columns) + fine


class GradualStyleEncoder(nn.Module):
    """Images [B, H, W, C] in [-1, 1] -> rows [B, num_ws, w_dim], which pSp adds to the mean style; `with_deltas` for e4e's.

    The first rows come from the smallest of three feature maps, the next from the second with it, the finest from all.
    """

    num_ws: int = 18
    w_dim: int = 512
    splits: tuple[int, int] = (3, 7)
    """The first row of the second map, and that of the largest."""
    channels: Sequence[int] = (64, 128, 256, 512)
    units: Sequence[int] = (3, 4, 14, 3)
    squeeze: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        _, fine, middle, coarse = Trunk(self.channels, self.units, self.squeeze, name="trunk")(images, train)
        middle = upsample_add(coarse, nn.Dense(coarse.shape[-1], name="lateral_0")(middle))
        fine = upsample_add(middle, nn.Dense(coarse.shape[-1], name="lateral_1")(fine))
        first, second = self.splits
        maps = [coarse if i < first else middle if i < second else fine for i in range(self.num_ws)]
        return jnp.stack([MapToStyle(self.w_dim, name=f"style_{i}")(x) for i, x in enumerate(maps)], 1)


def with_deltas(rows: Array, stage: Array | int | None = None) -> Array:
    """e4e's codes [B, num_ws, D] of an encoder's rows: row 0 for every layer, and its own delta for layers 1 to `stage`.

    stage: 0 encodes into W; None stands for all deltas. Rows without a say get no gradient.
    """
    index = jnp.arange(rows.shape[1])[None, :, None]
    last = rows.shape[1] if stage is None else stage
    return rows[:, :1] + jnp.where((index > 0) & (index <= last), rows, 0.0)


class BackboneEncoder(nn.Module):
    """Images -> styles from the last feature map alone, pSp's baselines: into W [B, w_dim], or W+ [B, num_ws, w_dim]."""

    w_dim: int = 512
    num_ws: int | None = None
    """Rows of W+, or None for W."""
    channels: Sequence[int] = (64, 128, 256, 512)
    units: Sequence[int] = (3, 4, 14, 3)
    squeeze: bool = True

    @nn.compact
    def __call__(self, images: Array, train: bool = False) -> Array:
        x = Trunk(self.channels, self.units, self.squeeze, name="trunk")(images, train)[-1]
        if self.num_ws is None:
            return Dense(self.w_dim, name="linear")(jnp.mean(x, (1, 2)))
        x = BatchNorm(name="norm")(x, train)
        x = along(x, *(pooling(side, 7) for side in x.shape[1:3])).reshape(len(x), -1)
        x = nn.Dense(self.channels[-1], name="hidden")(x)
        return Dense(self.num_ws * self.w_dim, name="linear")(x).reshape(len(x), self.num_ws, self.w_dim)


class LatentDiscriminator(nn.Module):
    """Styles [..., D] -> logits [...]: e4e's judge of whether a row looks like the mapping's."""

    width: int = 512
    layers: int = 4

    @nn.compact
    def __call__(self, w: Array) -> Array:
        for i in range(self.layers - 1):
            w = leaky_relu(nn.Dense(self.width, name=f"dense_{i}")(w))
        return nn.Dense(1, name=f"dense_{self.layers - 1}")(w)[..., 0]
