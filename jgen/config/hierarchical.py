"""Hierarchical VAEs: the very deep VAE, and NVAE with a noise-contrastive prior."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Share
from jgen.config.train import OptimizerConfig


@dataclass(frozen=True)
class VDVAESampling:
    """How the very deep VAE is sampled."""

    temperature: Positive = 1.0
    """Factor of the priors' deviations; below 1, likelier images."""
    temperatures: tuple[Positive, ...] = ()
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


@dataclass(frozen=True)
class NVAEConfig:
    """NVAE."""

    channels: Count = 24
    """Width at the full resolution; doubled at every scale below."""
    scales: Count = 2
    """Resolutions with latents; the finest has half the image's side."""
    groups: Count = 2
    """Groups of latents at each."""
    latents: Count = 4
    """Channels of a group."""
    cells: Count = 1
    """Residual cells between groups."""
    decoder: Literal["mixture", "gaussian"] = "gaussian"
    """Likelihood of pixels: a mixture of discretised logistics, or a normal distribution, as NCP-VAE's backbones have."""
    mixtures: Count = 5
    """Logistics of the mixture."""
    spectral: NonNegative = 1e-3
    """Weight of the convolutions' spectral norms and of the largest gains of batch norms."""
    kl_warmup: Share = 0.3
    """Share of the steps over which the KL's weight rises from 0, balanced between groups meanwhile."""


@dataclass(frozen=True)
class NCPConfig:
    """The noise-contrastive prior: a classifier a group, trained after the VAE."""

    prior_steps: Count = 1500
    """Updates of the classifiers."""
    prior_width: Count = 32
    """Width of the classifiers."""
    prior_cells: Count = 2
    """Their residual blocks."""
    prior_optimizer: OptimizerConfig = OptimizerConfig(1e-3)


@dataclass(frozen=True)
class NVAESampling:
    """How NVAE is sampled."""

    temperature: Positive = 1.0
    """Factor of the priors' deviations."""
    readjust: Natural = 0
    """Passes that read the batch norms' statistics again at the temperature; 0 keeps those of training."""
    noise: bool = False
    """Draw pixels from the likelihood rather than show its mean."""
    prior: Literal["base", "sir", "langevin"] = "sir"
    """The VAE's own prior, or the contrastive one by resampling or by Langevin dynamics. For a model with one."""
    proposals: Count = 64
    """Proposals of resampling, for each group of an image; 5,000 in the paper."""
    langevin_steps: Count = 20
    """Steps of Langevin dynamics, for each group; 100 in the paper."""
    langevin_step: Positive = 0.02
    """Their step size, in units of the prior's variance."""
