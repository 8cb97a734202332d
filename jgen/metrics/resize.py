"""Resizing as the FID pipelines do it: a matrix an axis, made once on the host, applied in float on the devices."""

import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.types import Array


def _cubic(a: float) -> Callable[[np.ndarray], np.ndarray]:
    """Keys' cubic: a = -0.5 is Pillow's, -0.75 PyTorch's."""

    def weight(x: np.ndarray) -> np.ndarray:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * a
        return np.where(x < 1, near, np.where(x < 2, far, 0))

    return weight


# name -> (weight of a distance in pixels, reach of it, widened where the image shrinks)
FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, bool]] = {
    "bicubic": (_cubic(-0.5), 2, True),
    "bilinear": (lambda x: np.maximum(1 - np.abs(x), 0), 1, True),
    "lanczos": (lambda x: np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0), 3, True),
    "box": (lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0), 0.5, True),
    "bicubic_aliased": (_cubic(-0.75), 2, False),
    "bilinear_aliased": (lambda x: np.maximum(1 - np.abs(x), 0), 1, False),
}


@functools.lru_cache(32)
def matrix(size: int, target: int, method: str) -> np.ndarray:
    """float64 [target, size]: what each new pixel takes from the old ones along an axis."""
    centres = (np.arange(target) + 0.5) * size / target
    if method == "nearest":
        # Summed up as Pillow does, whose rounding decides where a centre falls between two pixels.
        steps = np.full(target, size / target)
        steps[0] /= 2
        return np.eye(size)[np.floor(np.add.accumulate(steps)).astype(int)]
    if method == "bilinear_tf":
        places = np.arange(target) * (size / target)
        low = np.floor(places).astype(int)
        share = (places - low)[:, None]
        return (1 - share) * np.eye(size)[low] + share * np.eye(size)[np.minimum(low + 1, size - 1)]
    if method not in FILTERS:
        raise UserError(f"method={method}: must be one of nearest, bilinear_tf, {', '.join(FILTERS)}")
    weight, reach, widened = FILTERS[method]
    scale = max(size / target, 1.0) if widened else 1.0
    result = np.zeros((target, size))
    for row, centre in enumerate(centres):
        if widened:  # Pillow's window: pixels outside of the image are left out and the rest made to sum to 1
            low = max(int(centre - reach * scale + 0.5), 0)
            high = min(int(centre + reach * scale + 0.5), size)
            pixels = np.arange(low, high)
        else:  # PyTorch's: the pixel at the border stands for those beyond it
            first = int(np.floor(centre - 0.5)) - int(reach) + 1
            pixels = np.arange(first, first + 2 * int(reach))
        weights = weight((pixels + 0.5 - centre) / scale)
        np.add.at(result[row], np.clip(pixels, 0, size - 1), weights / weights.sum())
    return result


def resize(images: Array, height: int, width: int, method: str = "bicubic", levels: bool = False) -> Array:
    """Images [B, H, W, C] of levels 0..255, bytes or floats -> float [B, height, width, C] clipped to 0..255, not rounded.

    "bicubic" is the clean-fid resize (Parmar et al. 2022, arXiv:2104.11222): Pillow's antialiased bicubic on float
    channels. "bilinear", "lanczos", "box" and "nearest" are Pillow's too; those ending in "_aliased" are what
    PyTorch's interpolate does without antialiasing, as in older FID code; "bilinear_tf" is TensorFlow 1's, which takes pixels
    at their corners, as in the graph that FIDs were first computed with. levels: round and clip after each of the
    two passes, as Pillow does with 8-bit images.
    """

    def rounded(x: Array) -> Array:
        return jnp.clip(jnp.floor(x + 0.5), 0, 255) if levels else x

    if images.ndim != 4:
        raise UserError(f"images {images.shape}: must be [B, H, W, C]")
    images = images.astype(jnp.promote_types(images.dtype, jnp.float32))  # bytes would make whole numbers of the weights
    across = jnp.asarray(matrix(images.shape[2], width, method), images.dtype)
    down = jnp.asarray(matrix(images.shape[1], height, method), images.dtype)
    x = rounded(jnp.einsum("bhwc,vw->bhvc", images, across, precision=lax.Precision.HIGHEST))
    x = rounded(jnp.einsum("bhwc,uh->buwc", x, down, precision=lax.Precision.HIGHEST))
    return jnp.clip(x, 0, 255)
