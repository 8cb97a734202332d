"""PixelCNNs: their network, the distribution of pixels, and how they are sampled."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Natural, Positive, ShareBelowOne
from jgen.config.sampling import Label


@dataclass(frozen=True)
class PixelSampling:
    """How pixels are drawn."""

    temperature: Positive = 1.0
    """Temperature of the pixels: below 1, likelier ones."""
    top_k: Natural = 0
    """Draw from the k likeliest levels only; 0 from all. For the softmax output."""
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class PixelCNNConfig:
    """The network, and the distribution of pixels that it gives."""

    network: Literal["pixelcnn", "gated", "pixelcnnpp"] = "gated"
    """PixelCNN, Gated PixelCNN or PixelCNN++."""
    output: Literal["softmax", "mixture"] = "softmax"
    """256-way softmax of each channel, or a mixture of discretised logistics."""
    mixtures: Count = 10
    """Components of the mixture."""
    channels: Count = 32
    """Width of the network."""
    layers: Count = 5
    """Blocks; of PixelCNN++, at each of its levels."""
    levels: Count = 3
    """Levels of PixelCNN++."""
    hidden: Count = 64
    """Width of the last layers but one."""
    dropout: ShareBelowOne = 0.0
    """Share of PixelCNN++'s features left out in training."""
    conditional: bool = False
    """Give the network the class."""
