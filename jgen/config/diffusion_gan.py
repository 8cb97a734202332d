"""Diffusion-GAN: the process that diffuses what a discriminator sees, and how it adapts."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Natural, NonNegative, Positive, Range, ShareBelowOne


@dataclass(frozen=True)
class DiffusionGANConfig:
    """The diffusion of what D sees. Numbers that are 0 are the authors' for the base, which stand in brackets."""

    base: Literal["stylegan2", "projected"] = "stylegan2"
    """stylegan2: images are diffused, and D takes the time; projected: features are, and it does not."""
    distribution: Literal["priority", "uniform"] = "priority"
    """Chances of times: in proportion to t - 1, or all alike."""
    schedule: Literal["linear", "quad", "const", "jsd", "sigmoid", "cosine", "continuous_t"] = "linear"
    """How the betas go from the first to the last of the current number of steps."""
    t_min: Natural = 0
    """Least number of steps; 0 for the authors': 10, projected 5."""
    t_max: Natural = 0
    """Largest number of steps; 0 for the authors': 1000, projected 500."""
    beta_start: Positive = 1e-4
    """The first beta."""
    beta_end: ShareBelowOne = 0.0
    """The last beta; 0 for the authors': 0.02, projected 0.01."""
    noise_std: NonNegative = 0.0
    """Deviation of the noise (0.05, projected 0.5, on features)."""
    diffusion_target: Annotated[float, Range(-2, 1)] = 0.6
    """Mean sign of D's logits of reals at which the number of steps rests."""
    diffusion_kimg: Positive = 100.0
    """Thousands of images in which it could go from least to largest."""
