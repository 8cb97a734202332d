"""DeiT with a distillation token (Touvron et al. 2021, arXiv:2012.12877): the second feature network of StyleGAN-XL.

A vision transformer with two tokens beside those of the patches, one for the label and one for the teacher's. StyleGAN-XL's
authors take the patches' tokens after four of its blocks, and random layers of theirs make four feature maps of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.models.clip import Block
from jgen.models.perceptual import IMAGENET
from jgen.nn.plain import Conv, convolve
from jgen.nn.spectral_hook import UNIFORM
from jgen.types import Array

PATCH = 16
HEAD = 64
"""Channels of a head of attention, in DeiT's every size."""
SCALES = (4, 2, 1, 0.5)
"""How much larger than the grid of patches the four feature maps are."""


def normalized(images: Array) -> Array:
    """Images [B, H, W, 3] in [-1, 1] with the mean and deviation of ImageNet's colours taken out."""
    mean, deviation = (jnp.asarray(v, images.dtype)[None, None, None] for v in IMAGENET)
    return ((images + 1) / 2 - mean) / deviation


class Features(NamedTuple):
    """The network's outputs for images; those that are not used are not computed under jit."""

    taps: tuple[Array, ...]
    """Tokens of the patches after a quarter, two, three quarters and all of the blocks [B, H / 16, W / 16, C]."""
    logits: Array
    """ImageNet's classes [B, 1000]: the mean of the two tokens' logits."""


class DeiT(nn.Module):
    """Images [B, H, W, 3], `normalized`, of sides that 16 divides -> `Features`."""

    width: int = 768
    layers: int = 12
    grid: int = 14
    """Side of the grid of patches that positions are stored for; for another they are interpolated bilinearly."""
    classes: int = 1000
    head: bool = True
    """Without, there are the taps alone."""

    @nn.compact
    def __call__(self, x: Array) -> Features:
        x = Conv(self.width, (PATCH, PATCH), PATCH, padding="VALID", name="patch_embed")(x)
        batch, rows, columns, width = x.shape
        init = nn.initializers.truncated_normal(0.02)
        tokens = [self.param(name, init, (1, 1, width)) for name in ("cls_token", "dist_token")]
        x = jnp.concatenate([*(jnp.broadcast_to(t, (batch, 1, width)) for t in tokens), x.reshape(batch, -1, width)], 1)
        x = x + self._positions(self.param("pos_embed", init, (1, 2 + self.grid**2, width)), rows, columns)
        taps = []
        for i in range(self.layers):
            x = Block(self.width // HEAD, activation="gelu", epsilon=1e-6, name=f"blocks_{i}")(x)
            if (i + 1) % (self.layers // 4) == 0:
                taps.append(x[:, 2:].reshape(batch, rows, columns, width))
        if not self.head:
            return Features(tuple(taps), jnp.zeros((batch, 0), x.dtype))
        x = nn.LayerNorm(1e-6, name="norm")(x[:, :2])
        both = nn.Dense(self.classes, name="head")(x[:, 0]), nn.Dense(self.classes, name="head_dist")(x[:, 1])
        return Features(tuple(taps), (both[0] + both[1]) / 2)

    def _positions(self, stored: Array, rows: int, columns: int) -> Array:
        """[1, 2 + rows columns, width] of those stored."""
        if rows == columns == self.grid:
            return stored
        grid = stored[:, 2:].reshape(1, self.grid, self.grid, -1)
        grid = jax.image.resize(grid, (1, rows, columns, grid.shape[-1]), "bilinear", antialias=False)
        return jnp.concatenate([stored[:, :2], grid.reshape(1, rows * columns, -1)], 1)


class TokenMaps(nn.Module):
    """Four grids of tokens [B, h, w, C] -> feature maps of 4, 2, 1 and 1/2 times the side and C/8, C/4, C/2 and C channels.

    Random layers that are never trained (StyleGAN-XL's code, after Ranftl et al. 2021, arXiv:2103.13413): a 1x1 convolution,
    then a transposed one whose stride is its size, nothing, or a 3x3 one of stride 2. The two other tokens are left out.
    """

    @nn.compact
    def __call__(self, taps: Sequence[Array]) -> list[Array]:
        found = []
        for i, (x, scale) in enumerate(zip(taps, SCALES, strict=True)):
            width = x.shape[-1] // (8, 4, 2, 1)[i]
            x = nn.Dense(width, kernel_init=UNIFORM, bias_init=_within(x.shape[-1]), name=f"layer{i}")(x)
            if scale > 1:
                x = self._enlarged(x, int(scale), f"layer{i}_up")
            elif scale < 1:
                x = self._halved(x, f"layer{i}_down")
            found.append(x)
        return found

    def _enlarged(self, x: Array, scale: int, name: str) -> Array:
        batch, rows, columns, width = x.shape
        init = _within(width * scale**2)  # PyTorch counts a transposed kernel's outputs
        x = jnp.einsum("byxi,uvio->byuxvo", x, self.param(f"{name}_kernel", init, (scale, scale, width, width)))
        x = x.reshape(batch, rows * scale, columns * scale, width)
        return x + self.param(f"{name}_bias", init, (width,))[None, None, None]

    def _halved(self, x: Array, name: str) -> Array:
        width = x.shape[-1]
        x = convolve(x, self.param(f"{name}_kernel", UNIFORM, (3, 3, width, width)), 2, ((1, 1), (1, 1)))
        return x + self.param(f"{name}_bias", _within(9 * width), (width,))[None, None, None]


def _within(inputs: int) -> Any:
    """PyTorch's start of a bias: uniform within 1 over the root of the layer's inputs."""
    bound = inputs**-0.5
    return lambda key, shape, dtype=jnp.float32: jax.random.uniform(key, shape, dtype, -bound, bound)
