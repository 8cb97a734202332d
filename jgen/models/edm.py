"""The two U-Nets of EDM (Karras et al. 2022, arXiv:2206.00364).

SongUNet holds DDPM++ (embedding "positional", encoder "standard") and NCSN++ ("fourier", "residual", taps 1 3 3 1) of Song et
al. 2021; DhariwalUNet is ADM's as EDM has it. Submodules carry the names of the reference (`enc_16x16_block0` is
`enc.16x16_block0`). Both take x [B, H, W, C], what the preconditioner tells the network [B], and a label: int [B], where
`classes` stands for none, or weights of the classes [B, classes].
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.attention import attention
from jgen.nn.barrier import settled
from jgen.nn.conv import Conv3x3
from jgen.nn.dense import Dense
from jgen.nn.embed import timestep_embedding
from jgen.nn.fir import conv2d_resample, setup_filter
from jgen.nn.norm import GroupNorm, groups_of
from jgen.nn.precision import at_least_float32
from jgen.nn.resample import downsample, upsample
from jgen.types import Array, Dtype

SMALL = nn.initializers.variance_scaling(1e-10, "fan_avg", "uniform")
"""Initialiser of the last layer of a residual branch: 1e-5 of the others' scale."""
GLOROT = nn.initializers.glorot_uniform()
HALF = 0.5**0.5


def group_norm(channels: int, epsilon: float, dtype: Dtype, name: str) -> GroupNorm:
    """In groups as `groups_of` says."""
    return GroupNorm(groups_of(channels), epsilon, dtype, name=name)


class Block(nn.Module):
    """Residual block of two convolutions, conditioned on an embedding; optionally resampled, and with attention after it."""

    features: int
    heads: int = 0
    """Heads of the attention; 0 for none."""
    resample: Literal["", "up", "down"] = ""
    taps: Sequence[float] = (1, 1)
    skip_conv: bool = False
    """A 1x1 convolution on the skip wherever there is resampling, not only where the channels change."""
    scale_shift: bool = False
    skip_scale: float = 1.0
    epsilon: float = 1e-5
    dropout: float = 0.0
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool) -> Array:
        def conv(name: str, init: nn.initializers.Initializer = GLOROT, up: bool = False) -> Conv3x3:
            return Conv3x3(self.features, 1, self.dtype, init, up=up, name=name)

        def norm(h: Array, name: str) -> GroupNorm:
            return group_norm(h.shape[-1], self.epsilon, self.dtype, name)

        def resized(h: Array) -> Array:
            return {"up": upsample, "down": downsample}[self.resample](h, self.taps) if self.resample else h

        width = self.features * (2 if self.scale_shift else 1)
        known = Dense(width, dtype=self.dtype, kernel_init=GLOROT, name="affine")(emb)
        repeat = self.resample == "up" and tuple(self.taps) == (1, 1)
        between = resized if self.resample and not repeat else None
        added = None if self.scale_shift else known
        h = conv("conv0", up=repeat)(x, norm(x, "norm0").affine(x), between, added)
        affine = norm(h, "norm1").affine(h)
        if self.scale_shift:
            scale, shift = jnp.split(known, 2, -1)
            affine = affine.then(1 + scale, shift)
        drop = nn.Dropout(self.dropout, deterministic=False) if self.dropout and train else None
        h = conv("conv1", SMALL)(h, affine, drop)
        x_in = x.shape[-1]
        x = resized(x)
        if x_in != self.features or (self.skip_conv and self.resample):
            x = Dense(self.features, dtype=self.dtype, kernel_init=GLOROT, name="skip")(x)
        x = settled((x + h) * self.skip_scale)
        return settled(self._attend(norm(x, "norm2")(x), x)) if self.heads else x

    def _attend(self, y: Array, x: Array) -> Array:
        b, height, width, c = x.shape
        init = nn.initializers.variance_scaling(0.2, "fan_avg", "uniform")
        qkv = Dense(3 * c, dtype=self.dtype, kernel_init=init, name="qkv")(y)
        q, k, v = jnp.moveaxis(qkv.reshape(b, height * width, 3, self.heads, c // self.heads), 2, 0)
        out = attention(q, k, v).reshape(x.shape)
        return (x + Dense(c, dtype=self.dtype, kernel_init=SMALL, name="proj")(out)) * self.skip_scale


def fourier(noise: Array, frequencies: Array) -> Array:
    """[B, 2 K] of noise [B] and random frequencies [K]: sines, then cosines."""
    angles = 2 * jnp.pi * at_least_float32(noise)[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], -1)


def positional(noise: Array, width: int) -> Array:
    """[B, width] of noise [B]: the embedding of times, but sines first and the longest period among them.

    Raises UserError for a width that is odd or below 4: there would be no sine to a cosine, or no second period.
    """
    if width % 2 or width < 4:
        raise UserError(f"channels={width}: must be even and at least 4, for the sines and cosines of a noise level")
    cosines, sines = jnp.split(timestep_embedding(noise, width, endpoint=True), 2, -1)
    return jnp.concatenate([sines, cosines], -1)


def class_weights(label: Array | None, classes: int, batch: int) -> Array | None:
    """[B, classes] of a label in any of its forms; all 0 for none. Raises UserError for one that does not belong."""
    if not classes:
        if label is not None:
            raise UserError("label: the network has no classes but a label was given")
        return None
    if label is None:
        return jnp.zeros((batch, classes))
    return jax.nn.one_hot(label, classes) if jnp.issubdtype(label.dtype, jnp.integer) else label


def ascend(
    h: Array, skips: list[Array], size: int, net: "SongUNet | DhariwalUNet", block: Callable[..., Array], attend_last: bool
) -> Iterator[tuple[int, str, Array]]:
    """(level, its name, features) as the ascending half of a network makes them, level by level from the lowest.

    attend_last: of a level's blocks only the last has attention.
    """
    for level, mult in reversed(list(enumerate(net.channel_mult))):
        side = size >> level
        at = f"dec_{side}x{side}"
        if level == len(net.channel_mult) - 1:
            h = block(h, f"{at}_in0", h.shape[-1], attend=True)
            h = block(h, f"{at}_in1", h.shape[-1])
        else:
            h = block(h, f"{at}_up", h.shape[-1], "up")
        for i in range(net.num_blocks + 1):
            attend = side in net.attention_resolutions and (i == net.num_blocks or not attend_last)
            h = block(jnp.concatenate([h, skips.pop()], -1), f"{at}_block{i}", mult * net.channels, attend=attend)
        yield level, at, h


class SongUNet(nn.Module):
    """DDPM++ and NCSN++. H and W must be divisible by 2^(levels - 1)."""

    out_channels: int = 3
    channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 2, 2)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attention_resolutions: Sequence[int] = (16,)
    """In pixels."""
    classes: int = 0
    augment: int = 0
    """Numbers that tell the network how an image was augmented."""
    embedding: Literal["positional", "fourier"] = "positional"
    channel_mult_noise: int = 1
    encoder: Literal["standard", "skip", "residual"] = "standard"
    decoder: Literal["standard", "skip"] = "standard"
    taps: Sequence[float] = (1, 1)
    dropout: float = 0.0
    dtype: Dtype = None

    def _embed(self, noise: Array, label: Array | None, augment: Array | None) -> Array:
        width = self.channels * self.channel_mult_noise
        if self.embedding == "fourier":
            emb = fourier(noise, jax.lax.stop_gradient(self.param("freqs", nn.initializers.normal(16.0), (width // 2,))))
        else:
            emb = positional(noise, width)
        weights = class_weights(label, self.classes, len(noise))
        if weights is not None:
            emb = emb + Dense(width, kernel_init=GLOROT, name="map_label")(weights * self.classes**0.5)
        if self.augment and augment is not None:
            emb = emb + Dense(width, use_bias=False, kernel_init=GLOROT, name="map_augment")(augment)
        for i in range(2):
            layer = Dense(self.channels * self.channel_mult_emb, dtype=self.dtype, kernel_init=GLOROT, name=f"map_layer{i}")
            emb = nn.silu(layer(emb))
        return emb

    @nn.compact
    def __call__(
        self, x: Array, noise: Array, label: Array | None = None, augment: Array | None = None, *, train: bool = False
    ) -> Array:
        emb, size = self._embed(noise, label, augment), x.shape[1]
        check_levels(x, len(self.channel_mult))

        def block(h: Array, name: str, features: int, resample: Literal["", "up", "down"] = "", attend: bool = False) -> Array:
            return Block(
                features, int(attend), resample, self.taps, True, False, HALF, 1e-6, self.dropout, self.dtype, name=name
            )(h, emb, train)

        h, skips, aux = x, [], x
        for level, mult in enumerate(self.channel_mult):
            side = size >> level
            at = f"enc_{side}x{side}"
            if level == 0:
                h = Conv3x3(self.channels, 1, self.dtype, GLOROT, name=f"{at}_conv")(h)
                skips.append(h)
            else:
                h = block(h, f"{at}_down", h.shape[-1], "down")
                skips.append(h)
                if self.encoder == "skip":
                    aux = downsample(aux, self.taps)
                    h = skips[-1] = h + Dense(h.shape[-1], kernel_init=GLOROT, name=f"{at}_aux_skip")(aux)
                elif self.encoder == "residual":
                    joined = FusedDown(h.shape[-1], self.taps, name=f"{at}_aux_residual")(aux)
                    h = skips[-1] = aux = (h + joined) * HALF
            for i in range(self.num_blocks):
                h = block(h, f"{at}_block{i}", mult * self.channels, attend=side in self.attention_resolutions)
                skips.append(h)
        image: Array | None = None
        for level, at, features in ascend(h, skips, size, self, block, attend_last=True):
            if self.decoder == "skip" or level == 0:
                image = None if image is None else upsample(image, self.taps)
                affine = group_norm(features.shape[-1], 1e-6, self.dtype, f"{at}_aux_norm").affine(features)
                y = Conv3x3(self.out_channels, 1, self.dtype, SMALL, name=f"{at}_aux_conv")(features, affine)
                image = y if image is None else y + image
        assert image is not None
        return at_least_float32(image)


class FusedDown(nn.Module):
    """A 3x3 convolution whose padding covers the filter's too, then the filter, with stride 2.

    The two commute, so that here the filter comes first and the convolution has the stride: a quarter of its products.
    """

    features: int
    taps: Sequence[float]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", GLOROT, (3, 3, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        f = setup_filter(self.taps, separable=True)
        return conv2d_resample(x, kernel, f, down=2, padding=1, flip_filter=True) + bias[None, None, None]


class DhariwalUNet(nn.Module):
    """ADM's U-Net as EDM has it. H and W must be divisible by 2^(levels - 1); heads of 64 channels."""

    out_channels: int = 3
    channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attention_resolutions: Sequence[int] = (32, 16, 8)
    """In pixels."""
    classes: int = 0
    augment: int = 0
    dropout: float = 0.0
    dtype: Dtype = None
    attend_narrow: bool = True
    """Fewer than 64 channels have attention too, of one head; in the reference they have none."""

    def _embed(self, noise: Array, label: Array | None, augment: Array | None) -> Array:
        width, init = self.channels * self.channel_mult_emb, nn.initializers.he_uniform()
        emb = timestep_embedding(noise, self.channels)
        if self.augment and augment is not None:
            emb = emb + Dense(self.channels, use_bias=False, kernel_init=init, name="map_augment")(augment)
        emb = nn.silu(Dense(width, dtype=self.dtype, kernel_init=init, name="map_layer0")(emb))
        emb = Dense(width, dtype=self.dtype, kernel_init=init, name="map_layer1")(emb)
        weights = class_weights(label, self.classes, len(noise))
        if weights is not None:
            emb = emb + Dense(width, use_bias=False, kernel_init=init, name="map_label")(weights)
        return nn.silu(emb)

    @nn.compact
    def __call__(
        self, x: Array, noise: Array, label: Array | None = None, augment: Array | None = None, *, train: bool = False
    ) -> Array:
        emb, size = self._embed(noise, label, augment), x.shape[1]
        check_levels(x, len(self.channel_mult))

        def block(h: Array, name: str, features: int, resample: Literal["", "up", "down"] = "", attend: bool = False) -> Array:
            heads = max(features // 64, int(self.attend_narrow)) if attend else 0
            return Block(
                features, heads, resample, scale_shift=True, dropout=self.dropout, dtype=self.dtype, name=name
            )(h, emb, train)  # fmt: skip

        h, skips = x, []
        for level, mult in enumerate(self.channel_mult):
            side = size >> level
            at = f"enc_{side}x{side}"
            if level == 0:
                h = Conv3x3(mult * self.channels, 1, self.dtype, name=f"{at}_conv")(h)
            else:
                h = block(h, f"{at}_down", h.shape[-1], "down")
            skips.append(h)
            for i in range(self.num_blocks):
                h = block(h, f"{at}_block{i}", mult * self.channels, attend=side in self.attention_resolutions)
                skips.append(h)
        *_, (_, _, h) = ascend(h, skips, size, self, block, attend_last=False)
        affine = group_norm(h.shape[-1], 1e-5, self.dtype, "out_norm").affine(h)
        return at_least_float32(Conv3x3(self.out_channels, 1, self.dtype, SMALL, name="out_conv")(h, affine))


def check_levels(x: Array, levels: int) -> None:
    """Raises UserError unless height and width halve evenly down to the last level."""
    multiple = 2 ** (levels - 1)
    if x.shape[1] % multiple or x.shape[2] % multiple:
        raise UserError(f"image of {x.shape[1]}x{x.shape[2]}: {levels} levels need multiples of {multiple} pixels")
