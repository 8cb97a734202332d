"""SSIM, MS-SSIM and PSNR of pairs of images; pure, differentiable, per image."""

from collections.abc import Sequence
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError, check_choice
from jgen.types import Array

Border = Literal["valid", "reflect"]
"""valid: windows that lie fully inside, as Wang et al. mean it; reflect: the images are mirrored outwards first."""

K1, K2 = 0.01, 0.03
"""Constants of SSIM (Wang et al. 2004)."""
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of MS-SSIM's scales (Wang, Simoncelli & Bovik 2003)."""


def gaussian(size: int = 11, sigma: float = 1.5) -> np.ndarray:
    """A window [size] that sums to 1."""
    x = np.arange(size) - (size - 1) / 2
    window = np.exp(-0.5 * np.square(x / sigma))
    return window / window.sum()


def uniform(size: int = 7) -> np.ndarray:
    """A flat window [size] that sums to 1."""
    return np.full(size, 1 / size)


def psnr(a: Array, b: Array, data_range: float | None = None, pooled: bool = False) -> Array:
    """10 log10(range^2 / mean squared error) in dB of images [B, H, W, C]: [B], or of the whole batch's error [].

    data_range: 2 for floats (in [-1, 1]) and 255 for uint8 unless given.
    """
    a, b, data_range = _pair(a, b, data_range)
    error = jnp.mean(jnp.square(a - b), axis=None if pooled else (1, 2, 3))
    return 10 * jnp.log10(data_range**2 / error)


def ssim(
    a: Array,
    b: Array,
    data_range: float | None = None,
    *,
    window: np.ndarray | None = None,
    border: Border = "valid",
    sample_covariance: bool = False,
    k1: float = K1,
    k2: float = K2,
) -> Array:
    """Structural similarity [B] of images [B, H, W, C] (Wang et al. 2004), channels averaged.

    data_range: that of values from 0; without it floats are in [-1, 1] and count as their bytes do. window: 11-tap Gaussian
    of sigma 1.5 unless given; it is applied along both axes. sample_covariance: divide by n - 1 pixels rather than n, as
    scikit-image does by default.
    k1, k2: the paper's constants that keep the quotients stable. Raises UserError for images smaller than the window.
    """
    return jnp.mean(_maps(a, b, data_range, window, border, sample_covariance, k1, k2)[0], (1, 2, 3))


def ssim_map(
    a: Array,
    b: Array,
    data_range: float | None = None,
    *,
    window: np.ndarray | None = None,
    border: Border = "valid",
    sample_covariance: bool = False,
    k1: float = K1,
    k2: float = K2,
) -> Array:
    """Structural similarity at every window and channel [B, H', W', C]; options as of `ssim`.

    H' = H and W' = W with border="reflect", else as many as windows lie inside of the image.
    """
    return _maps(a, b, data_range, window, border, sample_covariance, k1, k2)[0]


def contrast_structure(
    a: Array,
    b: Array,
    data_range: float | None = None,
    *,
    window: np.ndarray | None = None,
    border: Border = "valid",
    k1: float = K1,
    k2: float = K2,
) -> Array:
    """SSIM without its luminance factor, over windows that lie inside whatever the border [B]."""
    return jnp.mean(_maps(a, b, data_range, window, "valid", False, k1, k2)[1], (1, 2, 3))


def ms_ssim(
    a: Array,
    b: Array,
    data_range: float | None = None,
    *,
    window: np.ndarray | None = None,
    weights: Sequence[float] = SCALES,
    border: Border = "valid",
    per_channel: bool = True,
    normalize: bool = False,
    k1: float = K1,
    k2: float = K2,
) -> Array:
    """Multi-scale SSIM [B] of images [B, H, W, C]: contrast and structure at all scales, luminance at the last.

    per_channel: multiply the scales of each channel and average those, clamped at 0 (pytorch-msssim); False averages
    channels first (torchmetrics, whose border is "reflect"). normalize: factors become (x + 1) / 2, so that none is
    negative. A factor of 0 or below counts as 0, with a gradient of 0. Raises UserError for images too small for their scales.
    """
    a, b, data_range = _from_black(a, b, data_range)
    size, least = 11 if window is None else len(window), min(a.shape[1:3])
    if least // 2 ** (len(weights) - 1) < size:
        shape = f"{a.shape[1]}x{a.shape[2]}"
        raise UserError(
            f"images {shape}: at the last of {len(weights)} scales smaller than the window of {size} pixels; give fewer weights"
        )
    axes = (1, 2) if per_channel else (1, 2, 3)
    factors = []
    for i, weight in enumerate(weights):
        last = i == len(weights) - 1
        full, _ = _maps(a, b, data_range, window, border, False, k1, k2)
        _, contrast = _maps(a, b, data_range, window, "valid", False, k1, k2)
        factor = jnp.mean(full if last else contrast, axes)
        factor = (factor + 1) / 2 if normalize else factor
        # The power's slope at 0 is infinite, and 0 times that is no number: it is taken where there is something only.
        above = factor > 0
        factors.append(jnp.where(above, jnp.where(above, factor, 1.0) ** weight, 0.0))
        a, b = _halve(a), _halve(b)
    product = jnp.prod(jnp.stack(factors), 0)
    return jnp.mean(product, 1) if per_channel else product


def _maps(
    a: Array, b: Array, data_range: float | None, window: np.ndarray | None, border: Border, sample_covariance: bool,
    k1: float, k2: float,
) -> tuple[Array, Array]:  # fmt: skip
    """(SSIM, its contrast-structure factor) at every window."""
    a, b, data_range = _from_black(a, b, data_range)
    check_choice(get_args(Border), border=border)
    window = gaussian() if window is None else window
    if np.ndim(window) != 1:
        raise UserError(f"window of shape {list(np.shape(window))}: must be [size], it is applied along both axes")
    size = len(window)
    if min(a.shape[1:3]) < size:
        raise UserError(f"images {a.shape[1]}x{a.shape[2]}: smaller than the window of {size} pixels")

    def blur(x: Array) -> Array:
        if border == "reflect":
            rim = (size - 1) // 2
            x = jnp.pad(x, ((0, 0), (rim, rim), (rim, rim), (0, 0)), mode="reflect")
        channels = x.shape[-1]
        taps = jnp.broadcast_to(jnp.asarray(window, x.dtype)[:, None, None, None], (size, 1, 1, channels))
        for kernel in (taps, jnp.swapaxes(taps, 0, 1)):
            x = lax.conv_general_dilated(
                x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), feature_group_count=channels,
                precision=lax.Precision.HIGHEST,
            )  # fmt: skip
        return x

    mean_a, mean_b = blur(a), blur(b)
    scale = size**2 / (size**2 - 1) if sample_covariance else 1.0
    var_a = jnp.maximum(blur(a * a) - mean_a**2, 0) * scale
    var_b = jnp.maximum(blur(b * b) - mean_b**2, 0) * scale
    covariance = (blur(a * b) - mean_a * mean_b) * scale
    c1, c2 = (k1 * data_range) ** 2, (k2 * data_range) ** 2
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast, contrast


def _halve(x: Array) -> Array:
    """2x2 averages; an odd last row or column is left out."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _from_black(a: Array, b: Array, data_range: float | None) -> tuple[Array, Array, float]:
    """As `_pair`, with black at 0: SSIM's luminance compares means, whose ratio of images in [-1, 1] would say nothing."""
    a, b, found = _pair(a, b, data_range)
    return (a + 1, b + 1, found) if data_range is None and found == 2.0 else (a, b, found)


def _pair(a: Array, b: Array, data_range: float | None) -> tuple[Array, Array, float]:
    """Both images as floats, since differences of whole numbers wrap around, and the range of their values."""
    a, b = jnp.asarray(a), jnp.asarray(b)
    if a.shape != b.shape or a.ndim != 4:
        raise UserError(f"images {a.shape} and {b.shape}: must be two of the same shape [B, H, W, C]")
    if data_range is None:
        whole = [not jnp.issubdtype(x.dtype, jnp.floating) for x in (a, b)]
        if whole[0] != whole[1] or any(w and x.dtype != jnp.uint8 for w, x in zip(whole, (a, b))):
            raise UserError(f"images of {a.dtype} and {b.dtype}: give the data_range of their values")
        data_range = 255.0 if whole[0] else 2.0
    if not data_range > 0:
        raise UserError(f"data_range={data_range}: must be above 0")
    kind = jnp.promote_types(jnp.result_type(a, b), jnp.float32)
    return a.astype(kind), b.astype(kind), data_range
