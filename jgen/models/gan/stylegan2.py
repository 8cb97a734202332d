"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958; with labels as in StyleGAN2-ADA, arXiv:2006.06676).

Submodules carry the names of the reference implementation (`synthesis.b8.conv0.affine` is `synthesis/b8/conv0/affine`). Images
are [B, H, W, C] in about [-1, 1]. Noise is an argument: {"b8.conv0": [B, 8, 8, 1], ...}, as
`jgen.edit.noise.planes` draws it; a missing plane is none. The centre of truncation w_avg is a plain array that training keeps.
"""

from collections.abc import Mapping as Dict
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.equalized import (
    FUNCTIONS,
    Activation,
    Conv,
    Dense,
    bias_act,
    minibatch_std,
    modulated_conv,
    normalize,
    sides_of,
    widths,
)
from jgen.nn.fir import downsample2d, setup_filter, upsample2d
from jgen.types import Array

Architecture = Literal["orig", "skip", "resnet"]
Noise = Dict[str, Array]
Taps = Any
"""Taps of a FIR filter, as a tuple, which can be compared: numbers, applied along both axes, or rows of numbers."""
TAPS: Taps = (1, 3, 3, 1)


class Mapping(nn.Module):
    """z [B, Z] (and labels [B, classes]) -> w [B, features]. z_dim = 0: of the labels alone, as in the discriminator."""

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    num_layers: int = 8
    embed_features: int | None = None
    layer_features: int | None = None
    lr_mul: float = 0.01
    activation: Activation = "lrelu"

    @nn.compact
    def __call__(self, z: Array | None, c: Array | None = None) -> Array:
        if (c is None) == bool(self.c_dim):
            raise UserError(f"c: the network has c_dim={self.c_dim} but {'no labels' if c is None else 'labels'} came")
        parts = []
        if self.z_dim:
            assert z is not None
            parts.append(normalize(z))
        if self.c_dim:
            assert c is not None
            embedded = Dense(self.embed_features or self.w_dim, name="embed")(c)
            parts.append(normalize(embedded))
        x = jnp.concatenate(parts, -1)
        for i in range(self.num_layers):
            last = i == self.num_layers - 1
            width = self.w_dim if last else self.layer_features or self.w_dim
            x = Dense(width, self.activation, self.lr_mul, name=f"fc{i}")(x)
        return x


class StyledConv(nn.Module):
    """Modulated convolution, noise, bias, activation."""

    features: int
    up: int = 1
    clamp: float | None = None
    use_noise: bool = True
    activation: Activation = "lrelu"
    taps: Taps = TAPS

    @nn.compact
    def __call__(self, x: Array, w: Array, noise: Array | None, gain: float = 1.0) -> Array:
        styles = Dense(x.shape[-1], bias_init=1.0, name="affine")(w)
        kernel = self.param("kernel", nn.initializers.normal(1.0), (3, 3, x.shape[-1], self.features))
        strength = self.param("noise_strength", nn.initializers.zeros, ()) if self.use_noise else None
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        x = modulated_conv(x, kernel, styles, up=self.up, taps=self.taps)
        if noise is not None and strength is not None:
            x = x + noise * strength
        clamp = None if self.clamp is None else self.clamp * gain
        return bias_act(x, bias, self.activation, gain=FUNCTIONS[self.activation][1] * gain, clamp=clamp)


class ToRGB(nn.Module):
    """1x1 modulated convolution without demodulation."""

    features: int
    clamp: float | None = None

    @nn.compact
    def __call__(self, x: Array, w: Array) -> Array:
        styles = Dense(x.shape[-1], bias_init=1.0, name="affine")(w) / x.shape[-1] ** 0.5
        kernel = self.param("kernel", nn.initializers.normal(1.0), (1, 1, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return bias_act(modulated_conv(x, kernel, styles, demodulate=False), bias, clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """The layers of one resolution. ws: one row a convolution, and one for toRGB, which the next block's first shares."""

    features: int
    image_channels: int
    first: bool
    last: bool
    architecture: Architecture
    clamp: float | None
    use_noise: bool
    activation: Activation
    taps: Taps

    @nn.compact
    def __call__(self, x: Array | None, image: Array | None, ws: list[Array], noise: Dict[str, Array | None]) -> tuple:
        def conv(x: Array, name: str, up: int = 1, gain: float = 1.0) -> Array:
            how = (self.clamp, self.use_noise, self.activation, self.taps)
            return StyledConv(self.features, up, *how, name=name)(x, ws.pop(0), noise[name], gain)

        if self.first:
            const = self.param("const", nn.initializers.normal(1.0), (4, 4, self.features))
            x = jnp.broadcast_to(const[None], (len(ws[0]), *const.shape))
            x = conv(x, "conv1")
        else:
            assert x is not None
            if self.architecture == "resnet":
                y = Conv(self.features, 1, up=2, use_bias=False, act_gain=0.5**0.5, taps=self.taps, name="skip")(x)
                x = y + conv(conv(x, "conv0", 2), "conv1", gain=0.5**0.5)
            else:
                x = conv(conv(x, "conv0", 2), "conv1")
        image = None if image is None else upsample2d(image, setup_filter(self.taps))
        if self.last or self.architecture == "skip":
            y = ToRGB(self.image_channels, self.clamp, name="torgb")(x, ws.pop(0))
            image = y if image is None else image + y
        return x, image


class Synthesis(nn.Module):
    """ws [B, num_ws, w_dim] -> images [B, R, R, C]."""

    resolution: int = 256
    image_channels: int = 3
    channel_base: int = 32768
    channel_max: int = 512
    architecture: Architecture = "skip"
    conv_clamp: float | None = None
    use_noise: bool = True
    activation: Activation = "lrelu"
    resample_filter: Taps = TAPS

    @property
    def num_ws(self) -> int:
        return 2 * len(sides_of(self.resolution))

    @nn.compact
    def __call__(self, ws: Array, noise: Noise | None = None) -> Array:
        noise = checked_noise(ws, noise, self.num_ws, noise_planes(self.resolution) if self.use_noise else {})
        how = (self.architecture, self.conv_clamp, self.use_noise, self.activation, self.resample_filter)
        x, image, at = None, None, 0
        for side, width in widths(self.resolution, self.channel_base, self.channel_max).items():
            first, last = side == 4, side == self.resolution
            convs = 1 if first else 2
            rows = [ws[:, at + i] for i in range(convs + 1)]
            planes = {f"conv{i}": noise.get(f"b{side}.conv{i}") for i in (0, 1)}
            block = SynthesisBlock(width, self.image_channels, first, last, *how, name=f"b{side}")
            x, image = block(x, image, rows, planes)
            at += convs
        return image  # pyright: ignore[reportReturnType]


class Generator(nn.Module):
    """Mapping and synthesis; call the parts by `method="map"` and `method="synthesize"`."""

    z_dim: int = 512
    c_dim: int = 0
    w_dim: int = 512
    resolution: int = 256
    image_channels: int = 3
    mapping_layers: int = 8
    mapping_lr_mul: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    architecture: Architecture = "skip"
    conv_clamp: float | None = None
    embed_features: int | None = None
    """Width of the label within the mapping; None: w_dim."""
    layer_features: int | None = None
    """Width of the mapping's layers but the last; None: w_dim."""
    mapping_activation: Activation = "lrelu"
    use_noise: bool = True
    activation: Activation = "lrelu"
    """That of the synthesis."""
    resample_filter: Taps = TAPS

    def setup(self) -> None:
        self.mapping = Mapping(
            self.z_dim, self.c_dim, self.w_dim, self.mapping_layers, self.embed_features, self.layer_features,
            self.mapping_lr_mul, self.mapping_activation,
        )  # fmt: skip
        self.synthesis = Synthesis(
            self.resolution, self.image_channels, self.channel_base, self.channel_max, self.architecture, self.conv_clamp,
            self.use_noise, self.activation, self.resample_filter,
        )  # fmt: skip

    @property
    def num_ws(self) -> int:
        """Rows of w: two a resolution."""
        return 2 * len(sides_of(self.resolution))

    def map(self, z: Array, c: Array | None = None) -> Array:
        """w [B, w_dim]."""
        return self.mapping(z, c)

    def synthesize(self, ws: Array, noise: Noise | None = None) -> Array:
        """Images of ws [B, num_ws, w_dim]."""
        return self.synthesis(ws, noise)

    def __call__(self, z: Array, c: Array | None = None, noise: Noise | None = None) -> Array:
        return self.synthesize(repeat(self.map(z, c), self.num_ws), noise)


def repeat(w: Array, num: int) -> Array:
    """w [B, D] for every row: [B, num, D]."""
    return jnp.broadcast_to(w[:, None], (len(w), num, w.shape[-1]))


def truncate(ws: Array, w_avg: Array, psi: float | Array, cutoff: int | None = None) -> Array:
    """The first `cutoff` rows (all, if None) of ws [B, num_ws, D] moved towards w_avg [D]: w_avg + psi (w - w_avg)."""
    moved = w_avg[None, None] + psi * (ws - w_avg[None, None])
    return moved if cutoff is None else jnp.concatenate([moved[:, :cutoff], ws[:, cutoff:]], 1)


def mix(ws: Array, other: Array, cutoff: int | Array) -> Array:
    """Rows from `cutoff` (a number, or one an image [B]) on taken from `other`, both [B, num_ws, D]."""
    rows = jnp.arange(ws.shape[1])[None, :, None]
    return jnp.where(rows < jnp.reshape(jnp.asarray(cutoff), (-1, 1, 1)), ws, other)


def checked_noise(ws: Array, noise: Noise | None, num_ws: int, planes: Dict[str, int]) -> Noise:
    """The noise, {} for None. Raises UserError where ws is not [B, num_ws, w_dim], or a plane's layer is not in `planes`."""
    if ws.ndim != 3 or ws.shape[1] != num_ws:
        raise UserError(f"ws of shape {ws.shape}: must be [B, {num_ws}, w_dim]")
    if unknown := sorted(set(noise or {}) - set(planes)):
        raise UserError(f"noise[{unknown[0]!r}]: no such layer; there are {', '.join(planes) or 'none'}")
    return noise or {}


def noise_planes(resolution: int) -> dict[str, int]:
    """{layer: side} of every noise input."""
    return {f"b{side}.conv{i}": side for side in sides_of(resolution) for i in ((1,) if side == 4 else (0, 1))}


class DiscriminatorBlock(nn.Module):
    """One resolution on the way down."""

    features: int
    out_features: int
    first: bool
    architecture: Architecture
    clamp: float | None
    activation: Activation
    taps: Taps

    @nn.compact
    def __call__(self, x: Array | None, image: Array | None) -> tuple[Array, Array | None]:
        act: Activation = self.activation
        if self.first or self.architecture == "skip":
            assert image is not None
            y = Conv(self.features, 1, act, clamp=self.clamp, name="fromrgb")(image)
            x = y if x is None else x + y
            image = downsample2d(image, setup_filter(self.taps)) if self.architecture == "skip" else None
        assert x is not None
        if self.architecture == "resnet":
            y = Conv(self.out_features, 1, down=2, use_bias=False, act_gain=0.5**0.5, taps=self.taps, name="skip")(x)
            x = Conv(self.features, 3, act, clamp=self.clamp, name="conv0")(x)
            share = 0.5**0.5
            gain, clamp = FUNCTIONS[act][1] * share, None if self.clamp is None else self.clamp * share
            down = Conv(self.out_features, 3, act, down=2, act_gain=gain, clamp=clamp, taps=self.taps, name="conv1")
            return y + down(x), image
        x = Conv(self.features, 3, act, clamp=self.clamp, name="conv0")(x)
        return Conv(self.out_features, 3, act, down=2, clamp=self.clamp, taps=self.taps, name="conv1")(x), image


class Epilogue(nn.Module):
    """4x4: minibatch standard deviation, convolution, two dense layers; with cmap [B, D] a projection on it."""

    features: int
    outputs: int
    architecture: Architecture
    clamp: float | None
    group: int | None
    std_channels: int
    activation: Activation

    @nn.compact
    def __call__(self, x: Array, image: Array | None) -> Array:
        if self.architecture == "skip":
            assert image is not None
            x = x + Conv(self.features, 1, self.activation, clamp=self.clamp, name="fromrgb")(image)
        if self.std_channels:
            x = minibatch_std(x, self.group, self.std_channels)
        x = Conv(self.features, 3, self.activation, clamp=self.clamp, name="conv")(x)
        x = Dense(self.features, self.activation, name="fc")(x.reshape(len(x), -1))
        return Dense(self.outputs, name="out")(x)


class Discriminator(nn.Module):
    """Images [B, R, R, C] (and labels [B, classes]) -> logits [B]."""

    c_dim: int = 0
    resolution: int = 256
    image_channels: int = 3
    channel_base: int = 32768
    channel_max: int = 512
    architecture: Architecture = "resnet"
    conv_clamp: float | None = None
    cmap_dim: int | None = None
    """Width of the label's projection; None: that of the last features."""
    mapping_layers: int = 8
    group: int | None = 4
    """Images of a group of the minibatch standard deviation."""
    std_channels: int = 1
    activation: Activation = "lrelu"
    """That of the blocks from the whole resolution down to 8 x 8."""
    last_activation: Activation = "lrelu"
    """That of the layers at 4 x 4."""
    resample_filter: Taps = TAPS
    mapping_lr_mul: float = 0.01
    embed_features: int | None = None
    """Width of the label within the mapping; None: that of its projection."""
    layer_features: int | None = None
    """Width of the mapping's layers but the last; None: that of the label's projection."""
    mapping_activation: Activation = "lrelu"

    @nn.compact
    def __call__(self, image: Array, c: Array | None = None) -> Array:
        if image.shape[1:] != (self.resolution, self.resolution, self.image_channels):
            raise UserError(
                f"image of shape {image.shape}: must be [B, {self.resolution}, {self.resolution}, {self.image_channels}]"
            )
        channels = widths(self.resolution, self.channel_base, self.channel_max)
        x, picture = None, image
        for side in sorted(channels, reverse=True)[:-1]:
            block = DiscriminatorBlock(
                channels[side],
                channels[side // 2],
                side == self.resolution,
                self.architecture,
                self.conv_clamp,
                self.activation,
                self.resample_filter,
                name=f"b{side}",
            )
            x, picture = block(x, picture)
        outputs = (self.cmap_dim or channels[4]) if self.c_dim else 1
        shared = (self.architecture, self.conv_clamp, self.group, self.std_channels, self.last_activation)
        assert x is not None
        out = Epilogue(channels[4], outputs, *shared, name="b4")(x, picture)
        if not self.c_dim:
            return out[:, 0]
        mapping = Mapping(
            0, self.c_dim, outputs, self.mapping_layers, self.embed_features, self.layer_features, self.mapping_lr_mul,
            self.mapping_activation, name="mapping",
        )  # fmt: skip
        cmap = mapping(None, c)
        return jnp.sum(out * cmap, -1) / outputs**0.5
