"""The first stages of latent diffusion (Rombach et al. 2022, arXiv:2112.10752): convolutional autoencoders with a KL or a
vector-quantised bottleneck.

Submodules carry the names of the reference (`down_0_block_1` is `down.0.block.1`). Images [B, H, W, C] in [-1, 1]; latents
are 2^(levels - 1) times smaller.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.models.edm import check_levels
from jgen.models.unet import Resample, downsample, upsample
from jgen.models.vqvae import Quantized, quantize
from jgen.nn.attention import attention
from jgen.nn.barrier import settled
from jgen.nn.conv import Conv3x3
from jgen.nn.norm import GroupNorm
from jgen.types import Array


class ResBlock(nn.Module):
    """Two convolutions, each after norm and swish, and a 1x1 one on the skip where the channels change."""

    features: int
    groups: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = Conv3x3(self.features, name="conv1")(x, GroupNorm(self.groups, 1e-6, name="norm1").affine(x))
        h = Conv3x3(self.features, name="conv2")(h, GroupNorm(self.groups, 1e-6, name="norm2").affine(h))
        return settled(h + (x if x.shape[-1] == self.features else nn.Dense(self.features, name="nin_shortcut")(x)))


Attention = Literal["vanilla", "linear", "none"]


class Attend(nn.Module):
    """Self-attention of one head over all pixels, with a residual connection.

    kind: "linear" weighs the values by a softmax of the keys over the pixels, without a norm and a residual connection, as in
    the authors' code; "none" gives what came.
    """

    groups: int
    kind: Attention = "vanilla"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.kind == "none":
            return x
        b, height, width, c = x.shape
        if self.kind == "linear":
            qkv = nn.Dense(3 * c, use_bias=False, name="to_qkv")(x).reshape(b, height * width, 3 * c)
            q, k, v = jnp.split(qkv, 3, -1)
            context = jnp.einsum("bnd,bne->bde", jax.nn.softmax(k, 1), v)
            return nn.Dense(c, name="to_out")(jnp.einsum("bde,bnd->bne", context, q).reshape(x.shape))
        h = GroupNorm(self.groups, 1e-6, name="norm")(x).reshape(b, height * width, 1, c)
        y = attention(*(nn.Dense(c, name=name)(h) for name in "qkv"))
        return x + nn.Dense(c, name="proj_out")(y.reshape(x.shape))


class _Half(nn.Module):
    """The fields that both halves share."""

    outputs: int
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention: Sequence[int] = ()
    """Levels with attention, by number from 0, the full resolution; the middle always has it."""
    groups: int = 32
    attention_kind: Attention = "vanilla"
    resample_conv: bool = True
    """Change the size by convolutions rather than by means of 2x2 squares and repeated pixels."""

    def _block(self, h: Array, level: int, name: str, number: int) -> Array:
        h = ResBlock(self.channel_mult[level] * self.channels, self.groups, name=f"{name}_{level}_block_{number}")(h)
        if level not in self.attention:
            return h
        return Attend(self.groups, self.attention_kind, name=f"{name}_{level}_attn_{number}")(h)

    def _middle(self, h: Array) -> Array:
        h = ResBlock(h.shape[-1], self.groups, name="mid_block_1")(h)
        h = Attend(self.groups, self.attention_kind, name="mid_attn_1")(h)
        return ResBlock(h.shape[-1], self.groups, name="mid_block_2")(h)

    def _out(self, h: Array) -> Array:
        return Conv3x3(self.outputs, name="conv_out")(h, GroupNorm(self.groups, 1e-6, name="norm_out").affine(h))


class Encoder(_Half):
    """Images -> [B, h, w, outputs]."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        check_levels(x, len(self.channel_mult))
        h = Conv3x3(self.channels, name="conv_in")(x)
        for level in range(len(self.channel_mult)):
            for i in range(self.num_res_blocks):
                h = self._block(h, level, "down", i)
            if level == len(self.channel_mult) - 1:
                break
            if self.resample_conv:
                h = Conv3x3(h.shape[-1], 2, asymmetric=True, name=f"down_{level}_downsample_conv")(h)
            else:
                h = Resample(downsample, name=f"down_{level}_downsample")(h)
        return self._out(self._middle(h))


class Decoder(_Half):
    """Latents -> images; a residual block a level more than the encoder has."""

    tanh: bool = False
    """The images are the hyperbolic tangent of what the last convolution gives."""

    @nn.compact
    def __call__(self, z: Array) -> Array:
        h = self._middle(Conv3x3(self.channel_mult[-1] * self.channels, name="conv_in")(z))
        for level in reversed(range(len(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                h = self._block(h, level, "up", i)
            if level and self.resample_conv:
                h = Conv3x3(h.shape[-1], name=f"up_{level}_upsample_conv", up=True)(h)
            elif level:
                h = Resample(upsample, name=f"up_{level}_upsample")(h)
        return jnp.tanh(self._out(h)) if self.tanh else self._out(h)


class _FirstStage(nn.Module):
    image_channels: int = 3
    z_channels: int = 4
    embed: int = 4
    """Channels of the latents."""
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention: Sequence[int] = ()
    groups: int = 32
    attention_kind: Attention = "vanilla"
    resample_conv: bool = True
    tanh: bool = False
    """The decoder's; the two above are those of both halves."""

    def _halves(self, double: int) -> None:
        shape = (self.channels, self.channel_mult, self.num_res_blocks, self.attention, self.groups)
        kinds = (self.attention_kind, self.resample_conv)
        self.encoder = Encoder(double * self.z_channels, *shape, *kinds)
        self.decoder = Decoder(self.image_channels, *shape, *kinds, self.tanh)
        self.quant_conv = nn.Dense(double * self.embed)
        self.post_quant_conv = nn.Dense(self.z_channels)

    def grid(self, height: int, width: int) -> tuple[int, int, int]:
        """Shape of the latents of an image."""
        factor = 2 ** (len(self.channel_mult) - 1)
        return height // factor, width // factor, self.embed

    def decode(self, z: Array) -> Array:
        """Latents [B, h, w, embed] -> images."""
        return self.decoder(self.post_quant_conv(z))


class AutoencoderKL(_FirstStage):
    """Gaussian latents, held near the unit normal by a weak KL."""

    def setup(self) -> None:
        self._halves(2)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and log variance [B, h, w, embed] of the latents, the latter kept within -30 and 20."""
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(x)), 2, -1)
        return mean, jnp.clip(log_variance, -30.0, 20.0)

    def __call__(self, x: Array) -> Array:
        return self.decode(self.encode(x)[0])


class VQModel(_FirstStage):
    """Latents on a grid of codes. Diffusion is trained on them as they are before they are quantised."""

    codes: int = 8192

    def setup(self) -> None:
        self._halves(1)
        shape, bound = (self.codes, self.embed), 1 / self.codes
        init = nn.initializers.uniform(2 * bound)
        self.codebook = self.param("codebook", lambda key: init(key, shape) - bound)

    def encode(self, x: Array) -> Array:
        """Latents [B, h, w, embed] before they are quantised."""
        return self.quant_conv(self.encoder(x))

    def quantize(self, z: Array) -> Quantized:
        """The nearest codes of latents."""
        return quantize(z, self.codebook)

    def decode_nearest(self, z: Array) -> Array:
        """Images of latents, which are quantised first."""
        return self.decode(self.quantize(z).vectors)

    def __call__(self, x: Array) -> Array:
        return self.decode_nearest(self.encode(x))
