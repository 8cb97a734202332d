"""FastGAN's generator (Liu et al. 2021, arXiv:2101.04775), full and lite, as Projected GAN trains it (arXiv:2111.01007).

Blocks double the side by nearest pixels and gate half of their channels by the other half; from 64 pixels on, features are
scaled by those of 4 to 32 pixels (skip-layer excitation). Convolutions are spectrally normalised; there is no mapping, no tanh.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.equalized import normalize
from jgen.nn.norm import BatchNorm, batch_moments
from jgen.nn.precision import at_least_float32
from jgen.nn.resample import downsample, upsample
from jgen.nn.spectral_hook import SpectralConv, SpectralDense, SpectralSpread
from jgen.types import Array

WIDTHS = {4: 16.0, 8: 8.0, 16: 4.0, 32: 2.0, 64: 2.0, 128: 1.0, 256: 0.5, 512: 0.25, 1024: 0.125}
"""{side: channels as a multiple of the generator's width}."""
EXCITED = {64: 4, 128: 8, 256: 16, 512: 32}
"""{side: that of the features which scale its own}."""


def gated(x: Array) -> Array:
    """The first half of the channels times the sigmoid of the second."""
    value, gate = jnp.split(x, 2, -1)
    return value * nn.sigmoid(gate)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation without weights, then gain 1 + a(y) and bias b(y) of an embedding y [B, E].

    Its running averages are in "batch_stats", its layers' vectors in "spectral".
    """

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        own, x = x.dtype, at_least_float32(x)
        mean, variance = (v.reshape(1, 1, 1, -1) for v in batch_moments(self, x, train, 0.1))
        gain, bias = (SpectralDense(x.shape[-1], name=name)(y, train) for name in ("gain", "bias"))
        return ((x - mean) / jnp.sqrt(variance + 1e-5) * (1 + gain[:, None, None]) + bias[:, None, None]).astype(own)


class UpBlock(nn.Module):
    """[B, H, W, I] -> [B, 2H, 2W, features]; lite: one convolution, else two, with noise. y: the class's embedding, or None."""

    features: int
    lite: bool

    @nn.compact
    def __call__(self, x: Array, y: Array | None, noise: list[Array | None], train: bool) -> Array:
        x, strength = upsample(x), None
        for i in (1,) if self.lite else (1, 2):
            x = SpectralConv(2 * self.features, padding=1, name=f"conv{i}")(x, train)
            if not self.lite:
                # With classes, both have one weight.
                if strength is None or y is None:
                    strength = self.param(f"noise{i}", nn.initializers.zeros, (1,))
                plane = noise[i - 1]
                x = x if plane is None else x + strength.reshape(1, 1, 1, 1) * plane
            norm = f"norm{i}"
            x = BatchNorm(name=norm)(x, train) if y is None else ConditionalBatchNorm(name=norm)(x, y, train)
            x = gated(x)
        return x


class Excitation(nn.Module):
    """Features [B, H, W, C] scaled, channel by channel, by what coarser ones say."""

    @nn.compact
    def __call__(self, x: Array, coarse: Array, train: bool) -> Array:
        while coarse.shape[1] > 4:
            coarse = downsample(coarse)
        s = SpectralConv(x.shape[-1], 4, name="conv1")(coarse, train)
        return x * nn.sigmoid(SpectralConv(x.shape[-1], 1, name="conv2")(nn.silu(s), train))


def noise_planes(resolution: int, lite: bool) -> dict[str, int]:
    """{name: side} of the noise inputs: two for each block, none in the lite generator."""
    return {} if lite else {f"feat_{side}.{i}": side for side in sides(resolution)[1:] for i in (1, 2)}


def sides(resolution: int) -> list[int]:
    """Sides of the features. Raises UserError unless it is a power of 2 from 8 to 1024."""
    if resolution not in WIDTHS or resolution < 8:
        raise UserError(f"resolution={resolution}: must be a power of 2 from 8 to 1024")
    return [side for side in WIDTHS if side <= resolution]


class Generator(nn.Module):
    """z [B, Z] (and labels int32 [B]) -> images [B, R, R, C]. Statistics are in "batch_stats", vectors in "spectral"."""

    resolution: int = 256
    image_channels: int = 3
    width: int = 128
    """Channels at 128 pixels; there are 16 times as many at 4."""
    classes: int = 0
    """0 for an unconditional generator; else batch norms depend on the class."""
    lite: bool = False

    @nn.compact
    def __call__(
        self, z: Array, label: Array | None = None, noise: dict[str, Array] | None = None, *, train: bool = False
    ) -> Array:
        """noise: {"feat_8.1": [B, 8, 8, 1], ...} of `noise_planes`; a missing plane is none."""
        if (label is None) == bool(self.classes):
            raise UserError(f"label: the network has classes={self.classes} but {'no label' if label is None else 'one'} came")
        widths = {side: int(share * self.width) for side, share in WIDTHS.items()}
        if not widths[self.resolution]:
            raise UserError(f"width={self.width}: leaves no channel at {self.resolution} pixels")
        y = (
            None
            if label is None
            else nn.Embed(self.classes, z.shape[-1], name="embed", embedding_init=nn.initializers.normal(1.0))(label)
        )
        x = SpectralSpread(2 * widths[4], name="init")(normalize(z), train)
        features = {4: gated(BatchNorm(name="init_norm")(x, train))}
        for side in sides(self.resolution)[1:]:
            planes = [(noise or {}).get(f"feat_{side}.{i}") for i in (1, 2)]
            x = UpBlock(widths[side], self.lite, name=f"feat_{side}")(features[side // 2], y, planes, train)
            if side in EXCITED:
                x = Excitation(name=f"se_{side}")(x, features[EXCITED[side]], train)
            features[side] = x
        return SpectralConv(self.image_channels, padding=1, use_bias=True, name="to_big")(features[self.resolution], train)
