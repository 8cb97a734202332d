"""A cascade of diffusion models: the sizes of its images, and the settings that a stage has of its own."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Inline, Natural, NonNegative, Range, Share, ShareBelowOne
from jgen.config.samplers import DPMSolver, Solver
from jgen.config.sampling import DiffusionSampling
from jgen.config.unet import LevelsConfig

Objective = Literal["simple", "hybrid"]


@dataclass(frozen=True)
class CascadeNetwork(LevelsConfig):
    """The U-Nets of a cascade, ADM's (Dhariwal & Nichol 2021)."""

    attention: tuple[Count, ...] = ()
    """Levels with attention, in pixels, besides the narrowest, which always has it."""
    num_heads: Natural = 0
    """Heads of attention, in place of as many as head_channels makes."""
    head_channels: Natural = 64
    """Channels of an attention head; 0 for a single head."""
    scale_shift_norm: bool = False
    """The time (and class) scales and shifts the features, rather than being added to them."""
    resblock_updown: bool = False
    """Resample inside residual blocks rather than by a convolution of its own."""


@dataclass(frozen=True)
class CascadeConfig:
    """The stages of a cascade, and the noise on the smaller images that they are given."""

    sizes: tuple[Count, ...] = (4, 8)
    """Sides of the images, stage by stage; the last is that of the set."""
    objective: Objective = "simple"
    """hybrid learns the variance of the steps back too (see experiments.improved_ddpm)."""
    most_augment: NonNegative = 0.5
    """Greatest deviation of the noise on smaller images in training."""
    blur: Share = 0.5
    """Share of smaller images that are blurred in training."""


@dataclass(frozen=True)
class StageConfig:
    """The settings that one stage has otherwise than the whole; None is as the whole."""

    steps: Count | None = None
    """Updates in all."""
    batch_size: Count | None = None
    """Images a step."""
    channels: Count | None = None
    """Width of the first level."""
    channel_mult: tuple[Count, ...] | None = None
    """Width of each level as multiples."""
    num_res_blocks: Count | None = None
    """Residual blocks a level."""
    attention: tuple[Count, ...] | None = None
    """Levels with attention, in pixels."""
    num_heads: Natural | None = None
    """Heads of attention."""
    dropout: ShareBelowOne | None = None
    """Share of features left out in training."""
    objective: Objective | None = None
    """hybrid learns the variance of the steps back too."""
    diffusion_steps: Annotated[int, Range(2)] | None = None
    """Steps of the chain."""
    most_augment: NonNegative | None = None
    """Greatest deviation of the noise on the smaller image in training."""
    blur: Share | None = None
    """Share of smaller images that are blurred in training."""


@dataclass(frozen=True)
class CascadeSampling(DiffusionSampling):
    """How every stage of a cascade is sampled, or each with a sampler and steps of its own."""

    solver: Inline[Solver] = DPMSolver(25)
    samplers: tuple[str, ...] = ()
    """In place of the sampler, that of each stage, from the smallest images up."""
    steps_each: tuple[Count, ...] = ()
    """In place of steps, those of each stage."""
    augment: NonNegative = 0.1
    """Deviation of the noise that is put on the smaller image of a super-resolution stage; one that was trained with less has
    the most of it."""


def filled(stages: Sequence[StageConfig], count: int) -> tuple[StageConfig, ...]:
    """Settings for every one of `count` stages, and no more of those that are as the whole."""
    set_ones = [i for i, own in enumerate(stages) if own != StageConfig()]
    length = max(count, max(set_ones, default=0) + 1)
    return (*stages, *(StageConfig(),) * length)[:length]
