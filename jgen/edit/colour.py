"""Colour spaces: red, green and blue in [0, 1] to others and back, channels last [..., 3].

Matrices are those of ITU-R BT.601 (analogue YUV and YIQ; YCbCr from 16 to 235) and of sRGB with white D65, as scikit-image has
them. JPEG's full-range YCbCr is in `jgen.dct.jpeg`.
"""

import jax.numpy as jnp
import numpy as np

from jgen.types import Array

YUV = np.array([[0.299, 0.587, 0.114], [-0.14714119, -0.28886916, 0.43601035], [0.61497538, -0.51496512, -0.10001026]])
YIQ = np.array([[0.299, 0.587, 0.114], [0.59590059, -0.27455667, -0.32134392], [0.21153661, -0.52273617, 0.31119955]])
YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]])
YCBCR_OFFSET = np.array([16.0, 128.0, 128.0])
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
WHITE = np.array([0.95047, 1.0, 1.08883])
"""D65, of the observer of 2 degrees."""
LUMINANCE = np.array([0.2125, 0.7154, 0.0721])
LAB_CUT, LAB_SLOPE = 0.008856, 7.787


def _times(colours: Array, matrix: np.ndarray) -> Array:
    return jnp.matmul(colours, jnp.asarray(matrix.T, colours.dtype), precision="highest")


def _row(values: np.ndarray, like: Array) -> Array:
    return jnp.asarray(values, like.dtype).reshape(*[1] * (like.ndim - 1), -1)


def linear(rgb: Array) -> Array:
    """Light of sRGB values: the standard's curve, undone."""
    return jnp.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)


def srgb(light: Array) -> Array:
    """sRGB values of light at least 0: the inverse of `linear`."""
    safe = jnp.maximum(light, 0.0031308)  # its power has no derivative at 0
    return jnp.where(light > 0.0031308, 1.055 * safe ** (1 / 2.4) - 0.055, light * 12.92)


def rgb_to_gray(rgb: Array) -> Array:
    """Luminance [...]."""
    return jnp.sum(rgb * _row(LUMINANCE, rgb), -1)


def rgb_to_hsv(rgb: Array) -> Array:
    """Hue, saturation and value, each in [0, 1]; grey has hue 0."""
    value, least = jnp.max(rgb, -1), jnp.min(rgb, -1)
    spread = value - least
    safe = jnp.where(spread > 0, spread, 1.0)
    red, green, blue = (rgb[..., i] for i in range(3))
    sixth = jnp.where(
        blue == value, 4 + (red - green) / safe, jnp.where(green == value, 2 + (blue - red) / safe, (green - blue) / safe)
    )
    hue = jnp.where(spread > 0, (sixth / 6) % 1.0, 0.0)
    saturation = jnp.where(value > 0, spread / jnp.where(value > 0, value, 1.0), 0.0)
    return jnp.stack([hue, saturation, value], -1)


def hsv_to_rgb(hsv: Array) -> Array:
    """The inverse of `rgb_to_hsv`."""
    hue, saturation, value = (hsv[..., i] for i in range(3))
    turned = (hue[..., None] * 6 + _row(np.array([5.0, 3.0, 1.0]), hsv)) % 6
    near = jnp.clip(jnp.minimum(turned, 4 - turned), 0.0, 1.0)
    return value[..., None] * (1 - saturation[..., None] * near)


def rgb_to_yuv(rgb: Array) -> Array:
    """Luma and two differences of colour, analogue."""
    return _times(rgb, YUV)


def yuv_to_rgb(yuv: Array) -> Array:
    """The inverse of `rgb_to_yuv`."""
    return _times(yuv, np.linalg.inv(YUV))


def rgb_to_yiq(rgb: Array) -> Array:
    """Luma and two differences of colour, turned against YUV's."""
    return _times(rgb, YIQ)


def yiq_to_rgb(yiq: Array) -> Array:
    """The inverse of `rgb_to_yiq`."""
    return _times(yiq, np.linalg.inv(YIQ))


def rgb_to_ycbcr(rgb: Array) -> Array:
    """Y from 16 to 235, Cb and Cr from 16 to 240, not rounded."""
    return _times(rgb, YCBCR) + _row(YCBCR_OFFSET, rgb)


def ycbcr_to_rgb(ycbcr: Array) -> Array:
    """The inverse of `rgb_to_ycbcr`."""
    return _times(ycbcr - _row(YCBCR_OFFSET, ycbcr), np.linalg.inv(YCBCR))


def rgb_to_xyz(rgb: Array) -> Array:
    """CIE XYZ of sRGB."""
    return _times(linear(rgb), XYZ)


def xyz_to_rgb(xyz: Array) -> Array:
    """The inverse of `rgb_to_xyz`; colours that sRGB does not have are clipped."""
    return jnp.clip(srgb(_times(xyz, np.linalg.inv(XYZ))), 0.0, 1.0)


def rgb_to_lab(rgb: Array) -> Array:
    """CIE L* from 0 to 100, a* and b*."""
    share = rgb_to_xyz(rgb) / _row(WHITE, rgb)
    f = jnp.where(share > LAB_CUT, jnp.cbrt(jnp.maximum(share, LAB_CUT)), LAB_SLOPE * share + 16 / 116)
    x, y, z = (f[..., i] for i in range(3))
    return jnp.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def lab_to_rgb(lab: Array) -> Array:
    """The inverse of `rgb_to_lab`, clipped as `xyz_to_rgb`."""
    y = (lab[..., 0] + 16) / 116
    f = jnp.stack([lab[..., 1] / 500 + y, y, jnp.maximum(y - lab[..., 2] / 200, 0.0)], -1)
    share = jnp.where(f > 0.2068966, f**3, (f - 16 / 116) / LAB_SLOPE)
    return xyz_to_rgb(share * _row(WHITE, lab))
