"""Diffusion-GAN: the process that diffuses what a discriminator sees, and how it adapts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, NonNegative, Positive, Range


@dataclass(frozen=True)
class DiffusionGANConfig:
    """The diffusion of what D sees."""

    base: Literal["stylegan2", "projected"] = "stylegan2"
    """stylegan2: images are diffused, and D is told the time; projected: features are, and it is not."""
    distribution: Literal["priority", "uniform"] = "priority"
    """Chances of times: in proportion to t - 1, or all alike."""
    schedule: Literal["linear", "quad", "const", "jsd", "sigmoid", "cosine", "continuous_t"] = "linear"
    """How the betas go from the first to the last of the current number of steps."""
    t_min: Count = 10
    """Least number of steps,"""
    t_max: Count = 1000
    """and the largest."""
    beta_start: Positive = 1e-4
    beta_end: Annotated[float, Range(0, 1, open_low=True, open_high=True)] = 2e-2
    noise_std: NonNegative = 0.05
    """Deviation of the noise; 0.5 on features."""
    diffusion_target: Annotated[float, Range(-2, 1)] = 0.6
    """Mean sign of D's logits of reals at which the number of steps rests."""
    diffusion_kimg: Positive = 100.0
    """Thousands of images in which it could go from least to largest."""
    before: Literal["none", "ada", "diffaug"] = "none"
    """Augmentation before the diffusion."""
