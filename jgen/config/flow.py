"""Flows: Glow and TarFlow, and how they are sampled."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, NonNegative, Positive, Range, Share, Traced
from jgen.config.sampling import Label


@dataclass(frozen=True)
class GlowSampling:
    """How Glow is sampled."""

    temperature: Annotated[NonNegative, Traced()] = 0.7
    """Standard deviation of the noise of every level; the density itself is at 1."""
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class GlowConfig:
    """Glow, and how 8-bit values become continuous ones."""

    levels: Count = 2
    """Levels, each of which halves the sides."""
    steps: Count = 8
    """Steps of flow a level."""
    width: Count = 64
    """Width of the couplings' hidden layers."""
    coupling: Literal["affine", "additive"] = "affine"
    """Couplings that shift and scale, or that shift alone."""
    lu: bool = True
    """Keep the 1x1 convolutions as LU factors."""
    conditional: bool = False
    """Let the prior of the last level depend on the class."""
    learn_top: bool = True
    """Learn the mean and deviation of the last level's prior."""
    bits: Annotated[int, Range(1, 8)] = 8
    """Bits of the images' values: 8, or fewer, as the paper's faces with 5."""
    dequantization: Literal["uniform", "variational"] = "uniform"
    """Noise that fills a level's width: uniform, or drawn by a flow that sees the image."""


@dataclass(frozen=True)
class TarFlowSampling:
    """How TarFlow is sampled."""

    guidance: NonNegative = 0.0
    """Guidance away from the model without a class: a + guidance (a - a_without); 0 is without."""
    guide: Literal["a", "b", "ab"] = "ab"
    """Guide the log scales, the shifts, or both."""
    attention_temperature: Positive = 1.0
    """Temperature of the attention of the pass without a class."""
    annealed: bool = True
    """Let the guidance grow from token to token."""
    denoise: bool = True
    """Move samples by the model's score, since it has learned noisy images."""
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class TarFlowConfig:
    """TarFlow, and the noise on its images."""

    patch: Count = 2
    """Side of a patch, which is a token."""
    width: Count = 64
    """Width of the transformers."""
    blocks: Count = 4
    """Flows, with the tokens in image order and reversed by turns."""
    layers: Count = 2
    """Layers of each block."""
    heads: Count = 2
    """Heads of attention."""
    noise: NonNegative = 0.05
    """Standard deviation of the Gaussian noise on images in [-1, 1]; 0 has uniform noise of a level's width, for
    likelihoods."""
    conditional: bool = False
    """Give every block the class."""
    drop_label: Share = 0.1
    """Share of the labels left out in training, for guidance."""
