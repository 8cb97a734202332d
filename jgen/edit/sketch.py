"""Sketches of images: their edges as dark lines on white, so that an encoder of sketches needs no other data (as pSp's has)."""

import jax.numpy as jnp

from jgen.types import Array


def sketch(images: Array) -> Array:
    """Sketches [B, H, W, C] of images [B, H, W, C] in [-1, 1]: white where nothing changes, black at the strongest edge.

    The size of Sobel's gradient of the mean of the channels; borders repeat. An image of one colour is white.
    """
    grey = jnp.pad(jnp.mean(images, -1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    smooth_rows = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    smooth_columns = grey[:, :, :-2] + 2 * grey[:, :, 1:-1] + grey[:, :, 2:]
    across = smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2]
    down = smooth_columns[:, 2:] - smooth_columns[:, :-2]
    size = jnp.hypot(across, down)
    most = jnp.max(size, (1, 2), keepdims=True)
    lines = 1 - 2 * size / jnp.maximum(most, 1e-3)
    return jnp.broadcast_to(lines[..., None], images.shape)
