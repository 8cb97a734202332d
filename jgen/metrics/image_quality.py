"""SSIM, MS-SSIM and PSNR of pairs of images; pure, differentiable, per image."""

from collections.abc import Sequence
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.types import Array

Border = Literal["valid", "reflect"]
"""valid: windows that lie fully inside, as Wang et al. mean it; reflect: the images are mirrored outwards first."""

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


def psnr(a: Array, b: Array, data_range: float = 2.0, pooled: bool = False) -> Array:
    """10 log10(range^2 / mean squared error) in dB of images [B, H, W, C]: [B], or of the whole batch's error []."""
    _check_pair(a, b)
    error = jnp.mean(jnp.square(a - b), axis=None if pooled else (1, 2, 3))
    return 10 * jnp.log10(data_range**2 / error)


def ssim(
    a: Array,
    b: Array,
    data_range: float = 2.0,
    *,
    window: np.ndarray | None = None,
    border: Border = "valid",
    sample_covariance: bool = False,
) -> Array:
    """Structural similarity [B] of images [B, H, W, C] (Wang et al. 2004), channels averaged.

    data_range: 2 for images in [-1, 1]. window: 11-tap Gaussian of sigma 1.5 unless given; it is applied along both
    axes. sample_covariance: divide by n - 1 pixels rather than n, as scikit-image does by default. Raises UserError
    for images smaller than the window.
    """
    full, _ = _maps(a, b, data_range, window, border, sample_covariance)
    return jnp.mean(full, (1, 2, 3))


def contrast_structure(
    a: Array, b: Array, data_range: float = 2.0, *, window: np.ndarray | None = None, border: Border = "valid"
) -> Array:
    """SSIM without its luminance factor, over windows that lie inside whatever the border [B]."""
    return jnp.mean(_maps(a, b, data_range, window, "valid", False)[1], (1, 2, 3))


def ms_ssim(
    a: Array,
    b: Array,
    data_range: float = 2.0,
    *,
    window: np.ndarray | None = None,
    weights: Sequence[float] = SCALES,
    border: Border = "valid",
    per_channel: bool = True,
    normalize: bool = False,
) -> Array:
    """Multi-scale SSIM [B] of images [B, H, W, C]: contrast and structure at all scales, luminance at the last.

    per_channel: multiply the scales of each channel and average those, clamped at 0 (pytorch-msssim); False averages
    channels first (torchmetrics, whose border is "reflect"). normalize: factors become (x + 1) / 2, so that none is
    negative. Raises UserError for images too small for their scales.
    """
    axes = (1, 2) if per_channel else (1, 2, 3)
    factors = []
    for i, weight in enumerate(weights):
        last = i == len(weights) - 1
        full, _ = _maps(a, b, data_range, window, border, False)
        _, contrast = _maps(a, b, data_range, window, "valid", False)
        factor = jnp.mean(full if last else contrast, axes)
        factor = (factor + 1) / 2 if normalize else factor
        factors.append(jnp.maximum(factor, 0) ** weight if per_channel else factor**weight)
        a, b = _halve(a), _halve(b)
    product = jnp.prod(jnp.stack(factors), 0)
    return jnp.mean(product, 1) if per_channel else product


def _maps(
    a: Array, b: Array, data_range: float, window: np.ndarray | None, border: Border, sample_covariance: bool
) -> tuple[Array, Array]:
    """(SSIM, its contrast-structure factor) at every window."""
    _check_pair(a, b)
    window = gaussian() if window is None else window
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
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    contrast = (2 * covariance + c2) / (var_a + var_b + c2)
    return (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * contrast, contrast


def _halve(x: Array) -> Array:
    """2x2 averages; an odd last row or column is left out."""
    b, h, w, c = x.shape
    return x[:, : h // 2 * 2, : w // 2 * 2].reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def _check_pair(a: Array, b: Array) -> None:
    if a.shape != b.shape or a.ndim != 4:
        raise UserError(f"images {a.shape} and {b.shape}: must be two of the same shape [B, H, W, C]")
