"""EDM's own settings."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Positive, Share


@dataclass(frozen=True)
class EDMConfig:
    """The network's kind, the noise levels of training and sampling, and the augmentation."""

    network: Literal["ddpmpp", "ncsnpp", "adm"] = "ddpmpp"
    """DDPM++ or NCSN++ (Song et al. 2021), or ADM's U-Net as EDM's authors train it."""
    attention: tuple[Count, ...] = (4,)
    """Levels with attention, in pixels."""
    sigma_data: Positive = 0.5
    """Standard deviation of the pixels."""
    mean: float = -1.2
    """Mean of the logarithm of the levels that are trained on."""
    deviation: Positive = 1.2
    """Standard deviation of the logarithm of the levels that are trained on."""
    sigma_min: Positive = 0.002
    """Levels of sampling: from sigma_max down to this one."""
    sigma_max: Positive = 80.0
    """Greatest level of sampling."""
    augment: Share = 0.0
    """Probability of each of the paper's geometric augmentations, whose labels the network takes. Half of the images are
    mirrored, unless it is 0."""
