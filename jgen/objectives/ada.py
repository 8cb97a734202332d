"""Adaptive discriminator augmentation (ADA, Karras et al. 2020, arXiv:2006.06676): the pipeline and the control of its p.

Five groups in the order of appendix B: pixel blitting and general geometry (one resampling), colour, image-space filtering,
corruption. Each transform of each image is on with probability strength * p. `draw` makes the draws, `augment` applies them;
p may be traced and no shape depends on a draw. With its draws given, the pipeline is an affine function of the images, so
penalties on gradients may be taken through it.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.nn.warp import along, composed, reflected, rotation, scaling, shift, warp
from jgen.types import Array, Key

Draws = Mapping[str, Array]
"""By name, one row an image: <transform>_value [B], uniform or standard normal before any scaling; <transform>_gate [B],
uniform, on where below strength * p. xint_value, xfrac_value and cutout_center (uniform) are [B, 2], x first; the noise has
noise_sigma_value [B] and noise_image [B, H, W, C]. Transforms: see `ADA`; rotate has rotate_pre and rotate_post, imgfilter
imgfilter0..3; a grey image has no hue and no saturation."""


@dataclasses.dataclass(frozen=True)
class ADA:
    """Strengths (0 is off, 1 is on with probability p) and ranges of the transforms; UserError for a negative number."""

    xflip: float = 0
    rotate90: float = 0
    xint: float = 0
    """Shift by whole pixels."""
    xint_max: float = 0.125
    """Largest shift, as a share of the image's size."""
    scale: float = 0
    rotate: float = 0
    aniso: float = 0
    xfrac: float = 0
    """Shift by fractions of pixels."""
    scale_std: float = 0.2
    """Standard deviation of log2 of the scale; aniso_std, contrast_std, saturation_std and imgfilter_std are too."""
    rotate_max: float = 1
    """1 is the full circle."""
    aniso_std: float = 0.2
    xfrac_std: float = 0.125
    """Standard deviation of the shift, as a share of the image's size."""
    brightness: float = 0
    contrast: float = 0
    lumaflip: float = 0
    hue: float = 0
    saturation: float = 0
    brightness_std: float = 0.2
    contrast_std: float = 0.5
    hue_max: float = 1
    """1 is the full circle."""
    saturation_std: float = 1
    imgfilter: float = 0
    imgfilter_bands: tuple[float, float, float, float] = (1, 1, 1, 1)
    """Strength by band, low frequencies first."""
    imgfilter_std: float = 1
    noise: float = 0
    cutout: float = 0
    noise_std: float = 0.1
    cutout_size: float = 0.5
    """Side of the cut, as a share of the image's size."""

    def __post_init__(self):
        for name, value in vars(self).items():
            if np.min(value) < 0:
                raise UserError(f"{name}={value}: must be at least 0")
        if len(self.imgfilter_bands) != 4:
            raise UserError(f"imgfilter_bands={self.imgfilter_bands}: must be 4 strengths")


_GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate_pre", "aniso", "rotate_post", "xfrac")
_COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
_FILTER = ("imgfilter0", "imgfilter1", "imgfilter2", "imgfilter3")
_UNIFORM = {"xflip", "rotate90", "xint", "rotate_pre", "rotate_post", "lumaflip", "hue", "cutout"}
_PAIRS = {"xint", "xfrac", "cutout"}

BG = ADA(xflip=1, rotate90=1, xint=1, scale=1, rotate=1, aniso=1, xfrac=1)
BGC = dataclasses.replace(BG, brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1)
BGCF = dataclasses.replace(BGC, imgfilter=1)
BGCFN = dataclasses.replace(BGCF, noise=1)
BGCFNC = dataclasses.replace(BGCFN, cutout=1)
R3GAN = dataclasses.replace(BG, brightness=0.5, contrast=0.5, lumaflip=0.5, hue=0.5, saturation=0.5, cutout=1)
"""R3GAN's: colours half as often, and cutout (Huang et al. 2024, arXiv:2501.05441; the authors' train.py)."""


def _strengths(config: ADA, channels: int) -> Mapping[str, float]:
    """Strength of every transform; 0 for those that images with so many channels do not have."""
    names = (*_GEOMETRY, *_COLOR, "noise", "cutout")
    strengths = {name: getattr(config, name.removesuffix("_pre").removesuffix("_post")) for name in names}
    strengths |= {name: config.imgfilter * band for name, band in zip(_FILTER, config.imgfilter_bands)}
    return strengths | ({"hue": 0, "saturation": 0} if channels == 1 else {})


def _value(name: str) -> str:
    return {"noise": "noise_sigma_value", "cutout": "cutout_center"}.get(name, f"{name}_value")


def draw(key: Key, batch: int, shape: tuple[int, ...], config: ADA) -> dict[str, Array]:
    """The draws for `batch` images of shape [H, W, C]; those of a transform are the same whichever others are on."""
    strengths = _strengths(config, shape[-1])
    gate_key, uniform_key, normal_key, noise_key = jax.random.split(key, 4)
    # all at once, needed or not: a call a draw would take longer to compile than all the rest
    gates = jax.random.uniform(gate_key, (len(strengths), batch))
    uniform = jax.random.uniform(uniform_key, (len(strengths), batch, 2))
    normal = jax.random.normal(normal_key, (len(strengths), batch, 2))
    draws = {}
    for i, name in enumerate(strengths):
        if strengths[name]:
            value = (uniform if name in _UNIFORM else normal)[i]
            draws |= {_value(name): value if name in _PAIRS else value[:, 0], f"{name}_gate": gates[i]}
    return draws | ({"noise_image": jax.random.normal(noise_key, (batch, *shape))} if strengths["noise"] else {})


def adjust_p(
    p: Array | float, mean_sign: Array | float, batch: int, interval: int, kimg: float = 500, target: float = 0.6
) -> Array:
    """p after `interval` batches in which the signs of D's logits of real images had this mean (r_t of eq. 1, section 3).

    Up or down by a step that takes p from 0 to 1 in `kimg` thousand images; never below 0, and without an upper limit.

    >>> round(float(adjust_p(0.0, 0.9, batch=50, interval=4)), 6)
    0.0004
    """
    step = jnp.sign(jnp.asarray(mean_sign) - target) * (batch * interval / (kimg * 1000))
    return jnp.maximum(p + step, 0)


def augment(x: Array, draws: Draws, p: Array | float, config: ADA) -> Array:
    """[B, H, W, C] in [-1, 1] -> the same shape, not clipped.

    p: a scalar, the probability of a transform of strength 1. Where geometry is configured the image is resampled even if
    no transform is on, which is close to the identity but not quite. UserError: a draw is missing, a side is a single
    pixel, or colour is configured and there are neither 1 nor 3 channels.
    """
    on = {name: strength for name, strength in _strengths(config, x.shape[-1]).items() if strength}
    needed = [*map(_value, on), *(f"{name}_gate" for name in on), *["noise_image"] * ("noise" in on)]
    missing = [name for name in needed if name not in draws]
    if missing:
        raise UserError(f"draws={sorted(draws)}: must come from the same config; missing are {missing}")
    if min(x.shape[1:3]) < 2:
        raise UserError(f"x.shape={x.shape}: needs images of at least 2 x 2, which have a reflection")
    amounts = _amounts(draws, p, config, on, x)
    if on.keys() & set(_GEOMETRY):
        inverse = jax.vmap(functools.partial(_inverse, height=x.shape[1], width=x.shape[2]))(amounts)
        x = warp(x, inverse.astype(x.dtype))
    if on.keys() & set(_COLOR):
        x = _color(x, amounts)
    if on.keys() & set(_FILTER):
        x = _filter(x, jnp.stack([amounts[name] for name in _FILTER], -1))
    if "noise" in on:
        x = x + amounts["noise"][:, None, None, None] * draws["noise_image"]
    return _cutout(x, amounts["cutout"], draws["cutout_center"]) if "cutout" in on else x


def _amounts(draws: Draws, p: Array | float, config: ADA, on: Mapping[str, float], x: Array) -> dict[str, Array]:
    """How much of every transform each image gets: [B], or [B, 2] for shifts. 0 leaves the image alone."""
    c = config

    def times(factor: float) -> Callable[[Array], Array]:
        return lambda n: n * factor

    def around(limit: float) -> Callable[[Array], Array]:
        return lambda u: (2 * u - 1) * limit

    rules: dict[str, Callable[[Array], Array]] = {
        "xflip": lambda u: jnp.floor(2 * u),
        "rotate90": lambda u: jnp.floor(4 * u) * (math.pi / 2),
        "xint": around(c.xint_max),
        "scale": times(c.scale_std),
        "rotate_pre": around(math.pi * c.rotate_max),
        "aniso": times(c.aniso_std),
        "rotate_post": around(math.pi * c.rotate_max),
        "xfrac": times(c.xfrac_std),
        "brightness": times(c.brightness_std),
        "contrast": times(c.contrast_std),
        "lumaflip": lambda u: jnp.floor(2 * u),
        "hue": around(math.pi * c.hue_max),
        "saturation": times(c.saturation_std),
        **{name: times(c.imgfilter_std) for name in _FILTER},
        "noise": lambda n: jnp.abs(n) * c.noise_std,
        "cutout": lambda u: jnp.full_like(u[:, 0], c.cutout_size),
    }
    amounts = {}
    for name, rule in rules.items():
        amounts[name] = jnp.zeros((len(x), 2) if name in _PAIRS - {"cutout"} else len(x), x.dtype)
        if name in on:
            amount, gate = rule(draws[_value(name)]), draws[f"{name}_gate"] < _chance(name, on[name], p)
            amounts[name] = jnp.where(expand_dims_like(gate, amount), amount, 0).astype(x.dtype)
    return amounts


def _chance(name: str, strength: float, p: Array | float) -> Array | float:
    """The chance of one transform. Of the two rotations, at least one is on with probability strength * p."""
    return 1 - jnp.sqrt(jnp.clip(1 - strength * p, 0, 1)) if name.startswith("rotate_") else strength * p


def _inverse(amounts: Mapping[str, Array], height: int, width: int) -> Array:
    """[3, 3]: from a place in the augmented image to the one it shows, as (x, y, 1) in pixels from the centre."""
    a, size = amounts, np.array([width, height])
    return composed(
        scaling(1 - 2 * a["xflip"], jnp.ones(())),
        rotation(a["rotate90"]),
        shift(jnp.round(a["xint"] * size)),
        scaling(2.0 ** -a["scale"], 2.0 ** -a["scale"]),
        rotation(a["rotate_pre"]),
        scaling(2.0 ** -a["aniso"], 2.0 ** a["aniso"]),
        rotation(a["rotate_post"]),
        shift(a["xfrac"] * size),
    )


def _color(x: Array, amounts: Mapping[str, Array]) -> Array:
    """Brightness, contrast, luma flip, hue and saturation at once.

    The last four all keep the grey axis and the plane across it apart, so they commute: the axis is scaled, the plane is
    scaled and turned, and brightness moves along the axis.
    """
    if x.shape[-1] not in (1, 3):
        raise UserError(f"x.shape={x.shape}: colour transforms need 1 or 3 channels")
    a = {name: amounts[name][:, None, None, None] for name in _COLOR}
    contrast = 2.0 ** a["contrast"]
    grey = jnp.mean(x, -1, keepdims=True)
    across = (jnp.roll(x, 1, -1) - jnp.roll(x, -1, -1)) / math.sqrt(3)  # the cross product with the axis
    turned = jnp.cos(a["hue"]) * (x - grey) + jnp.sin(a["hue"]) * across
    return contrast * ((1 - 2 * a["lumaflip"]) * (grey + a["brightness"]) + 2.0 ** a["saturation"] * turned)


@functools.cache
def _bands() -> np.ndarray:
    """[4, 43]: the filters of four octaves, low to high, that add up to the identity (sym2 wavelets and their mirrors)."""
    wavelet = np.array([1 - math.sqrt(3), 3 - math.sqrt(3), 3 + math.sqrt(3), 1 + math.sqrt(3)]) / (4 * math.sqrt(2))
    low = np.convolve(wavelet, wavelet[::-1]) / 2
    high = low * (-1) ** np.arange(1, 8)  # what `low` leaves of the identity
    bands, passed = [], np.ones(1)
    for octave in range(3):
        apart = np.zeros((2, 6 * 2**octave + 1))
        apart[:, :: 2**octave] = low, high
        bands.append(np.convolve(passed, apart[1]))
        passed = np.convolve(passed, apart[0])
    return np.stack([np.pad(band, (43 - len(band)) // 2) for band in (passed, *bands[::-1])])


def _filter(x: Array, exponents: Array) -> Array:
    """Each band of [B, H, W, C] amplified by 2^exponent [B, 4]; each gain keeps the power that images are expected to have."""
    power = jnp.asarray(np.array([10, 1, 1, 1]) / 13, x.dtype)
    norm = jnp.sqrt(jnp.prod(1 + power[None] * (4.0**exponents - 1), -1, keepdims=True))
    gains = 2.0**exponents / norm

    def matrices(size: int) -> Array:
        index = np.arange(size)[:, None] + np.arange(-21, 22)[None]
        bank = np.stack([reflected(band[None], index, size) for band in _bands()])
        return jnp.einsum("bk,kij->bij", gains, jnp.asarray(bank, x.dtype), precision="highest")

    return along(x, matrices(x.shape[1]), matrices(x.shape[2]))


def _cutout(x: Array, size: Array, center: Array) -> Array:
    """Zero where a pixel's middle is closer than size / 2 [B] to center [B, 2] (x, y) on both axes, in units of the image."""

    def close(n: int, at: Array) -> Array:
        middle = (jnp.arange(n, dtype=x.dtype) + 0.5) / n
        return jnp.abs(middle[None] - at[:, None]) < size[:, None] / 2

    hole = close(x.shape[1], center[:, 1])[:, :, None, None] & close(x.shape[2], center[:, 0])[:, None, :, None]
    return jnp.where(hole, 0, x)
