"""Hierarchical VAEs: the very deep VAE."""

from dataclasses import dataclass
from typing import Annotated

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Traced


@dataclass(frozen=True)
class VDVAESampling:
    """How the very deep VAE is sampled."""

    temperature: Annotated[Positive, Traced()] = 1.0
    """Factor of the priors' deviations; below 1, likelier images."""
    temperatures: Annotated[tuple[Positive, ...], Traced()] = ()
    """Factors for each resolution, from the smallest to the largest, in place of temperature."""
    noise: bool = False
    """Draw pixels from the likelihood rather than show its mean."""
    depth: Natural = 0
    """Draw only so many latents and take the means of the others' priors; 0 draws all."""


@dataclass(frozen=True)
class VDVAEConfig:
    """The very deep VAE."""

    encoder_layers: str = "8x2,8d2,4x1,4d4,1x1"
    """Blocks of the encoder: 8x2 is two at a side of 8, 8d2 one and then a pool by 2."""
    decoder_layers: str = "1x1,4m1,4x2,8m4,8x3"
    """Blocks of the decoder: 8m4 is one at a side of 8 that adds the features at 4."""
    width: Count = 48
    """Width of the blocks."""
    widths: str = ""
    """Other widths at some sides, such as 64:256,1:1024."""
    latents: Count = 8
    """Channels of every latent."""
    bottleneck: Positive = 0.5
    """Width inside of a block, as a share."""
    no_bias_above: Natural = 64
    """Features begin from learned numbers at sides up to this one."""
    mixtures: Count = 5
    """Logistics of the mixture that pixels are drawn from."""


@dataclass(frozen=True)
class SkippingConfig:
    """Updates that are left out because their gradient is too large."""

    skip_threshold: NonNegative = 400.0
    """Leave out an update whose gradient's norm, before clipping, is at least this; 0 for none."""
    weight_decay: NonNegative = 0.01
    """AdamW's decay of the weights."""
