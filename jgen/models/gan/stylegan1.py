"""StyleGAN (Karras et al. 2019, arXiv:1812.04948), with the growth of `progan`.

Images are [B, H, W, C] in about [-1, 1]. Noise is an argument: {"layer0": [B, 4, 4, 1], ...}, as `jgen.edit.noise.planes`
draws it; a missing plane is none. Layers are counted from 4 x 4 up, two a resolution, and each has its own row of ws.
Truncation and the mixing of styles are `stylegan2.truncate` and `stylegan2.mix`; the centre of truncation w_avg is a plain
array that training keeps.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.models.gan import progan
from jgen.models.gan.progan import BLUR, Fade, active_side, check_label, check_latent, enlarge, newest
from jgen.models.gan.stylegan2 import Noise, checked_noise, repeat
from jgen.nn.conv import convolve
from jgen.nn.equalized import NORMAL, Conv, Dense, bias_act, normalize, sides_of, widths
from jgen.nn.fir import filter2d
from jgen.nn.precision import at_least_float32
from jgen.types import Array

FusedScale = bool | Literal["auto"]


class Mapping(nn.Module):
    """z [B, Z] (and labels c [B, classes]) -> w [B, w_dim]. Labels become a vector like z; both are normalised together."""

    c_dim: int = 0
    w_dim: int = 512
    num_layers: int = 8
    features: int = 512
    lr_mul: float = 0.01

    @nn.compact
    def __call__(self, z: Array, c: Array | None = None) -> Array:
        check_label(c, self.c_dim)
        if c is not None:
            z = jnp.concatenate([z, c @ self.param("label_weight", NORMAL, (self.c_dim, z.shape[-1]))], -1)
        x = normalize(z)
        for i in range(self.num_layers):
            width = self.w_dim if i == self.num_layers - 1 else self.features
            x = Dense(width, "lrelu", self.lr_mul, gain=2**0.5, act_gain=1.0, name=f"dense{i}")(x)
        return x


def upsampled_conv(x: Array, kernel: Array, fused: bool) -> Array:
    """x [B, H, W, I] with every pixel repeated, convolved with kernel [3, 3, I, O]: [B, 2H, 2W, O].

    fused: as the transposed convolution of stride 2 with the sum of the kernel's four shifts by a pixel, which comes to
    the same with the kernel turned by half a circle; it matters for published weights alone.
    """
    return convolve(enlarge(x, 2 * x.shape[1]), kernel[::-1, ::-1] if fused else kernel, 1, "SAME")


def instance_norm(x: Array) -> Array:
    """x [B, H, W, C] with mean 0 and variance 1 in every channel of every image."""
    wide = at_least_float32(x)  # moments of bfloat16 would be rounded
    wide = wide - jnp.mean(wide, (1, 2), keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), (1, 2), keepdims=True) + 1e-8)).astype(x.dtype)


class Layer(nn.Module):
    """Convolution (the learned constant where x is None), noise, bias, leaky ReLU, adaptive instance normalisation."""

    features: int
    up: bool = False
    fused: bool = False

    @nn.compact
    def __call__(self, x: Array | None, w: Array, noise: Array | None) -> Array:
        if x is None:
            const = self.param("const", nn.initializers.ones, (4, 4, self.features))
            x = jnp.broadcast_to(const[None], (len(w), *const.shape))
        else:
            kernel = self.param("kernel", NORMAL, (3, 3, x.shape[-1], self.features)) * (2 / (9 * x.shape[-1])) ** 0.5
            x = filter2d(upsampled_conv(x, kernel, self.fused), BLUR) if self.up else convolve(x, kernel, 1, "SAME")
        strength = self.param("noise_strength", nn.initializers.zeros, (self.features,))
        x = x if noise is None else x + noise * strength[None, None, None]
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = instance_norm(bias_act(x, bias, "lrelu", gain=1.0))
        scale, shift = jnp.split(Dense(2 * self.features, name="style")(w)[:, None, None], 2, -1)
        return x * (scale + 1) + shift


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] -> images [B, R / 2^skip, R / 2^skip, C]."""

    resolution: int = 256
    image_channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512
    fused_scale: FusedScale = "auto"
    tanh: bool = False

    @nn.compact
    def __call__(self, ws: Array, noise: Noise | None = None, *, skip: int = 0, fade: Fade = None) -> Array:
        planes, active = noise_planes(self.resolution), active_side(self.resolution, skip)
        noise = checked_noise(ws, noise, len(planes), planes)
        x, images = None, {}
        for i, (side, width) in enumerate(widths(self.resolution, self.channel_base, self.channel_max).items()):
            if side > active and not self.is_initializing():
                break
            fused = side >= 128 if self.fused_scale == "auto" else self.fused_scale
            for layer in (2 * i, 2 * i + 1):
                up = side > 4 and layer == 2 * i
                x = Layer(width, up, fused, name=f"layer{layer}")(x, ws[:, layer], noise.get(f"layer{layer}"))
            assert x is not None
            if self.is_initializing() or side == active or (2 * side == active and fade is not None):
                images[side] = Conv(self.image_channels, 1, name=f"output{i}")(x)
        image = newest(images, active, fade)
        return jnp.tanh(image) if self.tanh else image


class Generator(nn.Module):
    """Mapping and synthesis; call the parts by `method="map"` and `method="synthesize"`.

    Growth is as in `progan.Generator`: images have the active resolution R / 2^skip, and `progan.enlarge` gives them the
    full size.
    """

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    resolution: int = 256
    image_channels: int = 3
    mapping_layers: int = 8
    mapping_features: int = 512
    mapping_lr_mul: float = 0.01
    channel_base: int = 16384
    channel_max: int = 512
    fused_scale: FusedScale = "auto"
    """How published weights are to be read, see `upsampled_conv`; auto: fused from 128 pixels on."""
    tanh: bool = False
    """Images end in a hyperbolic tangent, which the paper's have not."""

    def setup(self) -> None:
        self.mapping = Mapping(self.c_dim, self.w_dim, self.mapping_layers, self.mapping_features, self.mapping_lr_mul)
        channels = (self.image_channels, self.channel_base, self.channel_max)
        self.synthesis = Synthesis(self.resolution, *channels, self.fused_scale, self.tanh)

    @property
    def num_ws(self) -> int:
        """Rows of w: two a resolution, unused ones too."""
        return len(noise_planes(self.resolution))

    def map(self, z: Array, c: Array | None = None) -> Array:
        """w [B, w_dim]."""
        check_latent(z, self.z_dim)
        return self.mapping(z, c)

    def synthesize(self, ws: Array, noise: Noise | None = None, *, skip: int = 0, fade: Fade = None) -> Array:
        """Images [B, R / 2^skip, R / 2^skip, C] of ws [B, num_ws, w_dim]."""
        return self.synthesis(ws, noise, skip=skip, fade=fade)

    def __call__(
        self, z: Array, c: Array | None = None, noise: Noise | None = None, *, skip: int = 0, fade: Fade = None
    ) -> Array:
        return self.synthesize(repeat(self.map(z, c), self.num_ws), noise, skip=skip, fade=fade)


class Discriminator(progan.Discriminator):
    """`progan.Discriminator` that blurs before it shrinks."""

    blur: bool = True


def noise_planes(resolution: int) -> dict[str, int]:
    """{layer: side} of every noise input."""
    return {f"layer{2 * i + j}": side for i, side in enumerate(sides_of(resolution)) for j in (0, 1)}
