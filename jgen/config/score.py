"""Score models: of many noise levels (NCSN), and along an SDE."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from jgen.config.ranges import Count, Inline, Positive
from jgen.config.samplers import AnnealedLangevin, Coordinates, PredictorCorrector, Solver
from jgen.config.sampling import DiffusionSampling
from jgen.config.unet import NetworkName


@dataclass(frozen=True)
class NCSNConfig:
    """The network of many noise levels, its levels, and its objective. Levels are those of images in [0, 1]."""

    version: Literal[1, 2] = 2
    """1: the network takes the level; 2: its output is divided by it."""
    channels: Count = 24
    """Width of the RefineNet's first level; the later three have twice as many."""
    levels: Count = 15
    """Number of noise levels."""
    sigma_max: Positive = 4.0
    """Noisiest level: as large as the distance of two images (NCSNv2, technique 1)."""
    sigma_min: Positive = 0.02
    """Least level."""
    objective: Literal["denoising", "sliced"] = "denoising"
    """Denoising or sliced score matching."""


@dataclass(frozen=True)
class NCSNSampling(DiffusionSampling):
    """Langevin dynamics over the levels, or any sampler of the denoiser x + sigma^2 score."""

    coordinates: ClassVar[tuple[Coordinates, ...]] = ("levels", "discrete", "continuous")
    solver: Inline[Solver] = AnnealedLangevin()


@dataclass(frozen=True)
class SDEConfig:
    """The SDE, the network's kind, and the weighing of the loss."""

    sde: Literal["ve", "vp", "subvp"] = "vp"
    """Variance exploding, variance preserving, or sub-VP."""
    network: NetworkName = "unet"
    """ADM's U-Net, or the paper's two."""
    likelihood: bool = False
    """Weigh the loss so that it bounds the log-likelihood."""
    reduction: Literal["mean", "half_sum"] = "mean"
    """The loss of an image: the mean over pixels, or half their sum, as the authors take of VE. It matters to clipping."""
    beta_min: Positive = 0.1
    """Rate at time 0 (vp, subvp)."""
    beta_max: Positive = 20.0
    """Rate at time 1 (vp, subvp)."""
    sigma_min: Positive = 0.02
    """The least noise level (ve)."""
    sigma_max: Positive = 20.0
    """The greatest noise level (ve)."""


@dataclass(frozen=True)
class SDESampling(DiffusionSampling):
    """Predictor-corrector, the probability-flow ODE, or any sampler of a denoiser."""

    coordinates: ClassVar[tuple[Coordinates, ...]] = ("sde", "discrete", "continuous")
    solver: Inline[Solver] = PredictorCorrector()
    likelihood_tolerance: Positive = 1e-4
    """Error of a step of the ODE of the likelihood that `evaluate` gives, absolute and relative."""
