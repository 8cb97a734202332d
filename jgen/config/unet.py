"""The networks of diffusion and score models, and the labels that they take."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Range, ShareBelowOne

NetworkName = Literal["unet", "ddpmpp", "ncsnpp"]
"""ADM's U-Net, or DDPM++ and NCSN++ of Song et al. 2021."""


@dataclass(frozen=True)
class LevelsConfig:
    """A U-Net: the width and depth of its levels."""

    channels: Annotated[int, Range(2)] = 32
    """Width of the U-Net's first level."""
    channel_mult: tuple[Count, ...] = (1, 2)
    """Width of each level as multiples; each but the last halves the resolution."""
    num_res_blocks: Count = 1
    """Residual blocks a level."""
    dropout: ShareBelowOne = 0.0
    """Share of features left out in training."""


@dataclass(frozen=True)
class UNetConfig(LevelsConfig):
    """ADM's U-Net (Dhariwal & Nichol 2021)."""

    attention: tuple[Count, ...] = (2,)
    """Levels with attention, as downsampling factors."""
    head_channels: Natural = 64
    """Channels of an attention head; 0 for a single head."""
    scale_shift_norm: bool = False
    """The time (and class) scales and shifts the features, rather than being added to them."""
    resblock_updown: bool = False
    """Resample inside residual blocks rather than by a convolution of its own."""


@dataclass(frozen=True)
class LabelConfig:
    """How the network is conditioned on classes."""

    conditional: bool = False
    """Give the network the class."""
    drop_label: Annotated[float, Range(0, 1, open_high=True)] = 0.0
    """Share of the labels left out in training, for classifier-free guidance."""
    label_std: NonNegative = 0.0
    """Standard deviation of the labels' embeddings at the start (ADM's U-Net, there 1); 0: one over the root of their width."""
