"""Images in [-1, 1] as quantised DCT images, and back; what is lost is JPEG's rounding alone.

Sides that blocks do not divide are filled up with the last row and column, as JPEG's coders do. Colours are not subsampled.
"""

from typing import NamedTuple

import jax.numpy as jnp

from jgen.dct import jpeg, sequence
from jgen.dct.sequence import Layout
from jgen.types import Array


class DCTCodec(NamedTuple):
    """How images [B, H, W, C] become DCT images int32 [B, channels, positions], at a quality from 1 to 100."""

    layout: Layout
    height: int
    width: int
    quality: int
    block: int
    colours: int

    def planes(self, images: Array) -> Array:
        """The quantised coefficients of 8-bit images in [-1, 1]."""
        more = (self.layout.rows * self.block - self.height, self.layout.columns * self.block - self.width)
        pixels = jnp.pad(jnp.round((images + 1) * 127.5), ((0, 0), (0, more[0]), (0, more[1]), (0, 0)), mode="edge")
        return sequence.planes_of(jpeg.quantized(pixels, self.quality, self.block))

    def images(self, planes: Array) -> Array:
        """The 8-bit images in [-1, 1] of quantised coefficients."""
        pixels = jpeg.pixels_of(sequence.levels_of(planes, self.layout, self.colours), self.quality)
        return jnp.clip(jnp.round(pixels[:, : self.height, : self.width]), 0, 255) / 127.5 - 1

    def truncated(self, planes: Array, frequencies: int) -> Array:
        """DCT images with the first so many frequencies of every block, in zig-zag order, and no others."""
        kept = jnp.arange(self.layout.channels) < frequencies * self.colours
        return jnp.where(kept[None, :, None], planes, 0)


def codec(shape: tuple[int, int, int], quality: int, block: int = jpeg.BLOCK) -> DCTCodec:
    """The codec of images [H, W, C]. Raises UserError as `sequence.layout` and `jpeg.tables` do."""
    return DCTCodec(sequence.layout(shape, quality, block), *shape[:2], quality, block, shape[-1])
