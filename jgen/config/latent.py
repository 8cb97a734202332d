"""The diffusion of an autoencoder's latents: the prior of latent diffusion."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Inline, NonNegative, ShareBelowOne
from jgen.config.samplers import DPMSolver, Solver
from jgen.config.sampling import DiffusionSampling


@dataclass(frozen=True)
class PriorConfig:
    """The prior of the latents, and what it is conditioned on."""

    prior_steps: Count = 600
    """Updates of the diffusion."""
    scale: NonNegative = 0.0
    """Latents are multiplied by it; 0 measures 1 / their deviation on the first images."""
    prior: Literal["unet", "dit"] = "unet"
    """A U-Net, or a DiT (Peebles & Xie 2022)."""
    learn_variance: bool = False
    """The prior learns the variance of the reverse steps too, by the hybrid loss (see experiments.improved_ddpm)."""
    condition: Literal["none", "class", "text"] = "none"
    """The prior's condition: none, the class, or the caption."""
    drop_label: ShareBelowOne = 0.1
    """Share of classes or captions left out in training, for classifier-free guidance."""
    patch: Count = 1
    """Side of a token, in latents (DiT)."""
    depth: Count = 4
    """Blocks of DiT."""
    width: Count = 128
    """Width of DiT."""
    text_width: Count = 64
    """Width of the caption encoder: of words, or of the features that --data.captions minilm gives."""


@dataclass(frozen=True)
class LatentSampling(DiffusionSampling):
    """How a latent diffusion model is sampled."""

    solver: Inline[Solver] = DPMSolver(25)
    prompt: str = ""
    """Caption of all images, for a model of captions; empty takes those of held-out images."""
