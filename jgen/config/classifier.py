"""A classifier of images: the feature network of jgen's own scores or, of noisy images, one that guides."""

from dataclasses import dataclass
from typing import Literal

from jgen.config.ranges import Count, Natural, NonNegative, ShareBelowOne


@dataclass(frozen=True)
class ClassifierConfig:
    """The classifier's network, and how its training images are changed."""

    network: Literal["cnn", "adm"] = "cnn"
    """A small residual network, or ADM's classifier of noisy images."""
    channels: tuple[Count, ...] = (32, 64)
    """Width of each level; each but the first halves the resolution."""
    stride: Count = 1
    """Stride of cnn's first convolution: 2 for images of 28 pixels and more."""
    depth: Count = 2
    """Residual blocks a level (adm)."""
    attention: tuple[Count, ...] = (2,)
    """Levels with attention, as downsampling factors (adm)."""
    dropout: ShareBelowOne = 0.1
    """Dropout of the features, before the last layer."""
    shift: Natural = 0
    """Move each image by up to so many pixels, at random."""
    smoothing: ShareBelowOne = 0.0
    """Share of the label spread over all classes."""
    noisy: bool = False
    """Classify noisy images, given their times: for guidance."""
    weight_decay: NonNegative = 0.02
    """Weight decay of AdamW."""


@dataclass(frozen=True)
class OwnClassifierConfig:
    """The noisy classifier that a guided model trains as its second stage."""

    classifier_steps: Count = 400
    """Updates of the noisy classifier."""
    classifier_network: Literal["cnn", "adm"] = "cnn"
    """A small residual network, or ADM's, the descending half of its U-Net."""
    classifier_channels: tuple[Count, ...] = (32, 64)
    """Width of each level of the classifier."""
    classifier_stride: Count = 1
    """Stride of cnn's first convolution."""
    classifier_depth: Count = 2
    """Residual blocks a level, with attention where the model has it (adm)."""
    classifier_batch: Natural = 0
    """Images a step of the classifier; 0 for as many as of the model."""
    classifier_weight_decay: NonNegative = 0.02
    """Weight decay of the classifier's AdamW."""
