"""Alias-free generators (StyleGAN3): their layers, and the blur of what the discriminator sees at first."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive


@dataclass(frozen=True)
class AliasFreeConfig:
    """StyleGAN3's generator. Channels of a layer are channel_base / 2 over its cut-off frequency, at most channel_max."""

    config: Literal["t", "r"] = "t"
    """t: equivariant to translation; r: to rotation too, with 1x1 convolutions, twice the channels and radial filters."""
    layers: Count = 6
    """Layers before toRGB; 14 in the paper."""
    critical: Natural = 2
    """Critically sampled ones among them, at the end."""
    margin: Natural = 4
    """Pixels beyond each edge of the image; 10 in the paper."""
    d_learning_rate: Positive = 2e-3
    """Learning rate of D's Adam; learning_rate is G's."""
    blur_sigma: NonNegative = 0.0
    """Sigma of the blur, in pixels, of what D sees at first; the paper's config r has 10; 0 for none."""
    blur_kimg: NonNegative = 200.0
    """Thousands of images in which the blur fades."""
