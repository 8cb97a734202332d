"""Glow (Kingma & Dhariwal 2018, arXiv:1807.03039): a multi-scale flow of actnorm, invertible 1x1 convolutions and couplings."""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.flow import (
    LOG_SCALE_FACTOR,
    ORIGINAL,
    ActNorm,
    BorderConv,
    Convention,
    Coupling,
    Invertible1x1,
    ScaleMap,
    Split,
    gaussian_log_prob,
    per_image,
    squeeze,
    unsqueeze,
)
from jgen.types import Array


class Flow(NamedTuple):
    """An image as a flow sees it, level by level, fine to coarse."""

    out: list[Array]
    """Features that go on to the next level [B, h, w, c]; of the last level, its latents."""
    latents: list[Array]
    """Those that stay at the level."""
    log_prob: list[Array]
    """log density of the latents under the level's prior, in nats [B]."""
    logdet: list[Array]
    """log |det| of the level's steps, in nats [B]."""

    @property
    def total(self) -> Array:
        """log density of the image, in nats [B]."""
        return sum(self.log_prob[1:], self.log_prob[0]) + sum(self.logdet[1:], self.logdet[0])


class Step(nn.Module):
    """Actnorm, invertible 1x1 convolution, coupling. With one channel there is no convolution."""

    width: int = 512
    affine: bool = True
    lu: bool = False
    convention: Convention = ORIGINAL
    split: Split = "channel"
    scale_map: ScaleMap = "sigmoid"
    leaky: float = 0.0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        self.norm = ActNorm(self.convention.norm)
        self.mix = Invertible1x1(self.lu)
        how = (self.convention, self.split, self.scale_map, self.leaky, self.dtype)
        self.coupling = Coupling(self.width, self.affine, *how)

    def __call__(self, x: Array) -> tuple[Array, Array]:
        """(z, log-determinant [B])."""
        total = jnp.zeros(x.shape[:1])
        for layer in (self.norm, self.mix, self.coupling) if x.shape[-1] > 1 else (self.norm, self.coupling):
            x, logdet = layer(x)
            total = total + logdet
        return x, total

    def inverse(self, z: Array) -> Array:
        z = self.coupling.inverse(z)
        return self.norm.inverse(self.mix.inverse(z) if z.shape[-1] > 1 else z)


class Prior(nn.Module):
    """Mean and log deviation of a level's latents, from the half that goes on, or of the last level from nothing."""

    channels: int
    convention: Convention = ORIGINAL
    top: bool = False
    learned: bool = True
    classes: int = 0

    @nn.compact
    def __call__(self, given: Array, label: Array | None = None) -> tuple[Array, Array]:
        """given [B, h, w, C]: the half that goes on; of the last level only its shape counts. label int [B]; without one, the
        mean over the classes' shifts."""
        if self.top:  # a convolution of nothing, which still sees the border; the original's has twice the channels
            width = 2 * self.channels if self.convention.interleaved else self.channels
            given = jnp.zeros((*given.shape[:-1], width), given.dtype)
        h = jnp.zeros((*given.shape[:-1], 2 * self.channels), given.dtype)
        if self.learned:
            scaled = self.convention.scaled_last
            h = BorderConv(2 * self.channels, 3, self.convention.border, last=True, scaled=scaled, name="conv")(given)
        if self.classes:
            h = h + self._of_class(label)[:, None, None]
        if self.convention.interleaved and not self.top:
            return h[..., 0::2], h[..., 1::2]
        mean, log_deviation = jnp.split(h, 2, -1)
        return mean, log_deviation

    def _of_class(self, label: Array | None) -> Array:
        zeros, width = nn.initializers.zeros, 2 * self.channels
        table = self.param("class_weight", zeros, (self.classes, width))
        bias, scale = (self.param(f"class_{name}", zeros, (width,)) for name in ("bias", "scale"))
        rows = jnp.mean(table, 0)[None] if label is None else table[label]
        return (rows + bias[None]) * jnp.exp(LOG_SCALE_FACTOR * scale)[None]


class Glow(nn.Module):
    """Images [B, H, W, C] -> `Flow`, and back. Sides must be divisible by 2^levels.

    levels, steps: the paper's L and K. lu: whether the 1x1 convolutions are kept as LU factors; one for each level, or
    one for all.
    """

    levels: int = 3
    steps: int = 32
    width: int = 512
    affine: bool = True
    lu: bool | Sequence[bool] = False
    convention: Convention = ORIGINAL
    classes: int = 0
    learn_top: bool = True
    """Learn the mean and deviation of the last level's prior; else they are 0 and 1, moved by the class where there are any."""
    channels: int = 3
    """Channels of the images."""
    dtype: jnp.dtype | None = None
    """The couplings' networks compute in it; images, latents and log-determinants stay float32."""

    def setup(self) -> None:
        lu = (self.lu,) * self.levels if isinstance(self.lu, bool) else tuple(self.lu)
        self.blocks = [
            [Step(self.width, self.affine, lu[i], self.convention, dtype=self.dtype) for _ in range(self.steps)]
            for i in range(self.levels)
        ]
        last = self.levels - 1
        self.priors = [
            Prior(
                self.channels * 2 ** (i + 1 + (i == last)), self.convention, top=i == last,
                learned=i < last or self.learn_top, classes=self.classes if i == last else 0,
            )
            for i in range(self.levels)
        ]  # fmt: skip

    def __call__(self, x: Array, label: Array | None = None) -> Flow:
        found = Flow([], [], [], [])
        for i in range(self.levels):
            x, total = squeeze(x), jnp.zeros(x.shape[:1])
            for step in self.blocks[i]:
                x, logdet = step(x)
                total = total + logdet
            x, z = (x, x) if i == self.levels - 1 else jnp.split(x, 2, -1)
            log_prob = per_image(gaussian_log_prob(z, *self.priors[i](x, label)))
            for kept, value in zip(found, (x, z, log_prob, total)):
                kept.append(value)
        return found

    def inverse(self, given: Sequence[Array], label: Array | None = None, *, normalized: bool = True) -> Array:
        """Images of given [B, h, w, c], one array a level, fine to coarse: standard normal noise (times a temperature), which
        the priors scale and shift, or with normalized=False latents as they are."""
        x = given[-1]
        for i in reversed(range(self.levels)):
            z = given[i]
            if normalized:
                mean, log_deviation = self.priors[i](x, label)
                z = mean + jnp.exp(log_deviation) * z
            x = z if i == self.levels - 1 else jnp.concatenate([x, z], -1)
            for step in reversed(self.blocks[i]):
                x = step.inverse(x)
            x = unsqueeze(x)
        return x

    def noise_of(self, x: Array, label: Array | None = None) -> list[Array]:
        """The standard normal noise [B, h, w, c], level by level, that `inverse` makes the images of."""
        flow, noise = self(x, label), []
        for prior, out, z in zip(self.priors, flow.out, flow.latents):
            mean, log_deviation = prior(out, label)
            noise.append((z - mean) * jnp.exp(-log_deviation))
        return noise

    def latent_shapes(self, shape: Sequence[int]) -> list[tuple[int, int, int]]:
        """The shapes of an image's latents, level by level. Raises UserError for sides that squeezes do not divide."""
        height, width, channels = shape
        if height % 2**self.levels or width % 2**self.levels:
            raise UserError(f"levels={self.levels}: sides must be divisible by {2**self.levels}, not {height}x{width}")
        last = self.levels - 1
        return [(height >> i + 1, width >> i + 1, channels * 2 ** (i + 1 + (i == last))) for i in range(self.levels)]
