"""Progressive GAN (Karras et al. 2018, arXiv:1710.10196), and the growth that StyleGAN shares with it.

All layers have their weights from the start; `skip` says how many of the finest resolutions are not used yet, and `fade`
how far the finest used one is from being all there. Together they are the papers' level of detail, lod = skip + fade. Both
networks work at the active resolution R / 2^skip. Images are [B, H, W, C] in about [-1, 1].
"""

from collections.abc import Mapping

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.conv import convolve
from jgen.nn.equalized import NORMAL, Conv, Dense, bias_act, minibatch_std, normalize, sides_of, widths
from jgen.nn.fir import filter2d, setup_filter
from jgen.nn.resample import downsample
from jgen.types import Array

Fade = float | Array | None
"""Share of the coarser image, from 0 to below 1, the fraction of lod; None is 0 and spares the coarser image's work."""
BLUR = setup_filter((1, 2, 1))


def lod_at(images: float, first_level: int, fade_images: float, stable_images: float) -> float:
    """The level of detail after so many images: `first_level` for `stable_images`, one less over `fade_images`, and so on.

    skip is its whole part and fade its fraction. 0 once all resolutions are there. Raises UserError unless a level takes
    some images.

    >>> [lod_at(n, 2, fade_images=20, stable_images=10) for n in (0, 10, 15, 30, 60, 1000)]
    [2.0, 2.0, 1.75, 1.0, 0.0, 0.0]
    """
    if min(fade_images, stable_images) < 0 or fade_images + stable_images <= 0:
        raise UserError(f"fade_images={fade_images}, stable_images={stable_images}: must not be negative, nor both 0")
    levels, rest = divmod(images, fade_images + stable_images)
    gone = max(rest - stable_images, 0) / fade_images if fade_images else 0.0
    return max(float(first_level - levels - gone), 0.0)


def active_side(resolution: int, skip: int) -> int:
    """R / 2^skip. Raises UserError unless it is from 4 to R."""
    if not 0 <= skip <= len(sides_of(resolution)) - 1:
        raise UserError(f"skip={skip}: must be from 0 to {len(sides_of(resolution)) - 1}, for a side of at least 4")
    return resolution // 2**skip


def enlarge(images: Array, side: int) -> Array:
    """[B, S, S, C] -> [B, side, side, C], every pixel repeated. Raises UserError where S does not divide the side."""
    times, rest = divmod(side, images.shape[1])
    if rest:
        raise UserError(f"side={side}: must be a multiple of the images' {images.shape[1]} pixels")
    return jnp.repeat(jnp.repeat(images, times, 1), times, 2) if times > 1 else images


def fade_in(fine: Array, coarse: Array, fade: float | Array) -> Array:
    """fine [B, S, S, C], a share `fade` of it coarse, which is enlarged where it is smaller."""
    return fine + fade * (enlarge(coarse, fine.shape[1]) - fine)


def newest(images: Mapping[int, Array], side: int, fade: Fade) -> Array:
    """images[side], which fades in over images[side // 2] where there is one."""
    coarse = images.get(side // 2)
    return images[side] if fade is None or coarse is None else fade_in(images[side], coarse, fade)


def faded(images: Array, skip: int, fade: Fade = None) -> Array:
    """Real images [B, R, R, C] as the discriminator sees them while it grows: [B, R / 2^skip, R / 2^skip, C].

    Means of squares, of which a share `fade` has half the resolution still. Raises UserError where R is not divisible.
    """
    divisor = 2 ** (max(skip, 0) + (fade is not None))
    if skip < 0 or images.shape[1] % divisor or images.shape[2] % divisor:
        raise UserError(f"skip={skip}: must be at least 0, and {divisor} divide the images' sides {images.shape[1:3]}")
    for _ in range(skip):
        images = downsample(images)
    return images if fade is None else fade_in(images, downsample(images), fade)


def check_latent(z: Array, z_dim: int) -> None:
    """Raises UserError unless z is [B, z_dim]."""
    if z.ndim != 2 or z.shape[1] != z_dim:
        raise UserError(f"z of shape {z.shape}: must be [B, {z_dim}]")


def check_label(c: Array | None, c_dim: int) -> None:
    """Raises UserError unless c is [B, c_dim], or None where c_dim is 0."""
    if (c.shape[-1] if c is not None else 0) != c_dim:
        came = None if c is None else f"[{', '.join(map(str, c.shape))}]"
        raise UserError(f"c={came}: must be {f'[B, {c_dim}]' if c_dim else 'None, the network has no labels'}")


def rectified(features: int, size: int, name: str) -> Conv:
    """Convolution and leaky ReLU, whose gain is in the scale of the weights."""
    return Conv(features, size, "lrelu", gain=2**0.5, act_gain=1.0, name=name)


class Start(nn.Module):
    """z [B, Z] -> [B, 4, 4, features], and leaky ReLU: a convolution of a single pixel."""

    features: int

    @nn.compact
    def __call__(self, z: Array) -> Array:
        kernel = self.param("kernel", NORMAL, (4, 4, z.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = jnp.einsum("bi,hwio->bhwo", z, kernel * (2 / (16 * z.shape[-1])) ** 0.5)
        return bias_act(x, bias, "lrelu", gain=1.0)


class Generator(nn.Module):
    """z [B, Z] (and labels c [B, classes]) -> images [B, R / 2^skip, R / 2^skip, C]; `enlarge` gives them the full size.

    Labels are concatenated to z before its normalisation. At 4 x 4, which has no coarser image, `fade` does nothing.
    """

    z_dim: int = 512
    c_dim: int = 0
    resolution: int = 256
    image_channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512

    @nn.compact
    def __call__(self, z: Array, c: Array | None = None, *, skip: int = 0, fade: Fade = None) -> Array:
        active = active_side(self.resolution, skip)
        check_latent(z, self.z_dim)
        check_label(c, self.c_dim)
        x = normalize(z if c is None else jnp.concatenate([z, c], -1))
        images = {}
        for i, (side, width) in enumerate(widths(self.resolution, self.channel_base, self.channel_max).items()):
            if side > active and not self.is_initializing():
                break
            name = f"layer{2 * i}"
            x = normalize(Start(width, name=name)(x) if side == 4 else rectified(width, 3, name)(enlarge(x, side)))
            x = normalize(rectified(width, 3, f"layer{2 * i + 1}")(x))
            if self.is_initializing() or side == active or (2 * side == active and fade is not None):
                images[side] = Conv(self.image_channels, 1, name=f"output{i}")(x)
        return newest(images, active, fade)


def pooled_conv(x: Array, kernel: Array) -> Array:
    """x [B, H, W, I] convolved with kernel [3, 3, I, O], then the mean of every 2x2 square: [B, H/2, W/2, O].

    One convolution of stride 2 with the mean of the kernel's four shifts by a pixel, which is the papers' fused form.
    """
    shifts = [jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a in (0, 1) for b in (0, 1)]
    return convolve(x, sum(shifts[1:], shifts[0]) / 4, 2, ((1, 1), (1, 1)))


class PooledConv(nn.Module):
    """An optional blur, 3x3 convolution, 2x2 mean, leaky ReLU."""

    features: int
    blur: bool

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", NORMAL, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = filter2d(x, BLUR) if self.blur else x
        return bias_act(pooled_conv(x, kernel * (2 / (9 * x.shape[-1])) ** 0.5), bias, "lrelu", gain=1.0)


class Discriminator(nn.Module):
    """Images [B, R / 2^skip, R / 2^skip, C] (and labels c [B, classes]) -> logits [B].

    With labels, the last layer has a logit for each class, of which c chooses. Pooling comes before the activation, as in
    the weights the authors published. Layers are counted from the full resolution down. Raises UserError for an image
    that is not of the active resolution.
    """

    c_dim: int = 0
    resolution: int = 256
    image_channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512
    group: int | None = 4
    """Images of a group of the minibatch standard deviation; None is the whole batch, 0 or 1 leaves it out."""
    std_channels: int = 1
    """Channels of that deviation; they divide those of the features."""
    blur: bool = False
    """[1, 2, 1] before the convolutions that shrink the image, as in StyleGAN."""

    @nn.compact
    def __call__(self, image: Array, c: Array | None = None, *, skip: int = 0, fade: Fade = None) -> Array:
        active = active_side(self.resolution, skip)
        if image.shape[1:] != (active, active, self.image_channels):
            raise UserError(f"image of shape {image.shape}: must be [B, {active}, {active}, {self.image_channels}] at {skip=}")
        check_label(c, self.c_dim)
        if self.is_initializing():  # layers that are not used yet need their weights too
            image, skip = enlarge(image, self.resolution), 0
        channels = widths(self.resolution, self.channel_base, self.channel_max)
        sides = sorted(channels, reverse=True)
        x = rectified(channels[sides[skip]], 1, f"input{skip}")(image)
        for lod, side in enumerate(sides[skip:-1], skip):
            x = rectified(channels[side], 3, f"layer{2 * lod}")(x)
            x = PooledConv(channels[side // 2], self.blur, name=f"layer{2 * lod + 1}")(x)
            if self.is_initializing() or (lod == skip and fade is not None):
                image = downsample(image)
                x = fade_in(x, rectified(channels[side // 2], 1, f"input{lod + 1}")(image), 0.0 if fade is None else fade)
        logits = self.judge(x, 2 * (len(sides) - 1))
        return logits[:, 0] if c is None else jnp.sum(logits * c, -1)

    def judge(self, x: Array, layer: int) -> Array:
        """4x4 features -> logits [B, at least 1]; `layer` counts on."""
        spread = x if self.group in (0, 1) else minibatch_std(x, self.group, self.std_channels)
        x = rectified(x.shape[-1], 3, f"layer{layer}")(spread)
        width = min(self.channel_base // 2, self.channel_max)
        x = Dense(width, "lrelu", gain=2**0.5, act_gain=1.0, name=f"layer{layer + 1}")(x.reshape(len(x), -1))
        return Dense(max(self.c_dim, 1), name=f"layer{layer + 2}")(x)
