"""NVAE, and the noise contrastive prior of its latents."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.autoencoder import VAEConfig, VAELossConfig
from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range, Share
from jgen.config.train import OptimizerConfig


@dataclass(frozen=True)
class NVAEConfig:
    """NVAE: its groups of latents, its cells, and the likelihood of the pixels."""

    channels: Annotated[int, Range(2)] = 16
    """Width at the image's side; it doubles where the side halves."""
    latents: Count = 4
    """Channels of a group of latents."""
    groups: tuple[Count, ...] = (2, 2)
    """Groups at each scale, from the largest to the smallest, each half as large as the one before."""
    image_blocks: Natural = 1
    """Halvings of the side before the largest scale of latents."""
    image_cells: Count = 1
    """Cells of each of them, and of each doubling after the latents."""
    encoder_cells: Count = 1
    """Cells of the encoder before a group."""
    decoder_cells: Count = 1
    """Cells of the decoder before a group."""
    flows: Natural = 0
    """Normalising flows of each group's posterior."""
    likelihood: Literal["mixture", "gaussian", "bernoulli"] = "gaussian"
    """Distribution of the pixels: logistics in bins; a density, as in NCP-VAE; or binary values, drawn again at every step."""
    mixtures: Count = 10
    """Logistics of the mixture."""


@dataclass(frozen=True)
class NVAELossConfig:
    """The bound that NVAE is trained on."""

    kl_anneal: Share = 0.3
    """Share of the steps over which the KL's weight rises to 1, with the groups' KLs balanced meanwhile."""
    kl_constant: Share = 1e-4
    """Share of the steps before that, at the least weight."""
    kl_least: Share = 1e-4
    """The least weight."""
    spectral: NonNegative = 1e-2
    """Weight of the spectral norms of all kernels and of the greatest gains of the normalisations."""
    spectral_first: NonNegative = 0.0
    """That weight at first, which then moves to spectral as the KL's weight rises; 0 keeps it constant."""


@dataclass(frozen=True)
class AdamaxConfig:
    """Adamax with weight decay in the gradient."""

    learning_rate: Positive = 1e-2
    """Learning rate, reached by a linear warm-up."""
    warmup: Natural = 100
    """Steps of the warm-up."""
    final_learning_rate: Share = 0.01
    """Share of the learning rate that a cosine falls to by the last step."""
    weight_decay: NonNegative = 3e-4
    """Times the weights, added to their gradient."""


@dataclass(frozen=True)
class PlainVAEConfig:
    """A VAE with one group of latents, in place of NVAE."""

    network: VAEConfig = VAEConfig()
    loss: VAELossConfig = VAELossConfig()
    optimizer: OptimizerConfig = OptimizerConfig(1e-3, warmup=200, final_learning_rate=0.02, clip=0.0, ema=0.998)


@dataclass(frozen=True)
class NCPConfig:
    """The classifiers that tell the posteriors' latents from the prior's, and their training."""

    ncp_steps: Count = 2000
    """Updates of the classifiers."""
    ncp_width: Annotated[int, Range(2)] = 32
    """Width of the classifiers."""
    ncp_blocks: Natural = 2
    """Residual blocks of each."""


@dataclass(frozen=True)
class NVAESampling:
    """How NVAE is sampled."""

    temperature: Positive = 1.0
    """Factor of the priors' deviations; below 1, likelier images."""
    noise: bool = False
    """Draw pixels from the likelihood rather than show its mean."""
    statistics: Literal["running", "reread"] = "running"
    """Batch normalisation by the statistics of training, or by those of images drawn at the temperature."""
    passes: Count = 500
    """Passes over which statistics are read again, each of --pass-size images."""
    pass_size: Annotated[int, Range(2)] = 36
    """Images of a pass."""


@dataclass(frozen=True)
class NCPSampling(NVAESampling):
    """How latents are drawn from the noise contrastive prior."""

    method: Literal["sir", "langevin", "prior"] = "sir"
    """Sampling-importance-resampling, Langevin dynamics, or the base prior, without the classifiers."""
    proposals: Count = 500
    """Draws of the base prior that sir chooses from, for each group."""
    steps: Count = 100
    """Steps of Langevin dynamics, for each group."""
    step_size: Positive = 0.02
    """Size of a step, in the base prior's deviations."""
