"""Images at the sides that a GAN's networks can have."""

from typing import NamedTuple

import jax.numpy as jnp

from jgen.config import DataConfig
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.types import Array


class ImageShape(NamedTuple):
    """The images that a network is built for."""

    side: int
    """The least power of 2 that holds the images."""
    channels: int
    classes: int
    """0 for an unconditional network."""


def square(data: DataConfig) -> int:
    """The side of the images. Raises UserError for images that are not square."""
    height, width, _ = data.shape
    if height != width:
        raise UserError(f"data.name={data.name}: images of {height}x{width}; this network makes square ones")
    return height


def shape_of(data: DataConfig, conditional: bool) -> ImageShape:
    """The images of a network that works in powers of 2. Raises UserError for images that are not square, or have no labels."""
    return ImageShape(1 << (square(data) - 1).bit_length(), data.shape[-1], classes_of(data, conditional))


def pad(images: Array, side: int) -> Array:
    """Images [B, H, W, C] in the middle of side x side ones, black (-1) around."""
    rim = side - images.shape[1]
    around = (rim // 2, rim - rim // 2)
    return jnp.pad(images, ((0, 0), around, around, (0, 0)), constant_values=-1.0) if rim else images


def cropped(images: Array, side: int) -> Array:
    """The middle side x side pixels: the inverse of `pad`."""
    at = (images.shape[1] - side) // 2
    return images[:, at : at + side, at : at + side]
