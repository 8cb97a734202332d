"""Projected GAN: FastGAN's generator, and a discriminator on the features of a frozen network."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range


@dataclass(frozen=True)
class FeatureHeadsConfig:
    """The discriminator's heads on features of frozen networks, and what it sees."""

    backbones: tuple[Literal["efficientnet_lite0", "deit"], ...] = ("efficientnet_lite0",)
    """Feature networks, each with heads and random weights of its own; StyleGAN-XL's are deit efficientnet_lite0."""
    deit_file: str = ""
    """Weights of DeiT, the official deit_base_distilled_patch16_224-df68dfff.pth; jgen ships none."""
    feature_size: Annotated[int, Range(32, 1024)] = 64
    """Side, a multiple of 32, to which images are resized for the feature network; 224 in the papers."""
    heads: Annotated[int, Range(1, 4)] = 4
    """Feature maps that have a head, the finest first."""
    head_width: Natural = 0
    """Channels within the heads; 0 for the papers' 64 to 512."""
    mixing: Literal["none", "channels", "scales"] = "scales"
    """How random weights mix the feature maps: not, across channels, or across scales too."""
    mixing_width: Count = 64
    """Channels of the finest mixed map; each coarser one has twice as many."""
    separable: bool = False
    """Separable convolutions in the heads, for small sets."""
    d_augment: Literal["none", "diffaug"] = "diffaug"
    """The augmentation of what D sees."""
    blur_sigma: NonNegative = 0.0
    """Sigma of the blur of what D sees at first, in pixels; StyleGAN-XL's is 2; 0 for none."""
    blur_kimg: NonNegative = 200.0
    """Thousands of images in which the blur fades."""


@dataclass(frozen=True)
class FastGANConfig:
    """FastGAN's generator and the training of both players."""

    generator: Literal["fastgan_lite", "fastgan"] = "fastgan_lite"
    """One convolution a block, for small sets, or two with noise."""
    width: Count = 32
    """Channels at 128 pixels; there are 16 times as many at 4."""
    z_dim: Count = 64
    """Size of the latent."""
    conditional: bool = False
    """Give both networks the class."""
    learning_rate: Positive = 2e-4
    """Learning rate of Adam, for both players."""
    ema_kimg: Positive = 5.0
    """Half-life of G's moving average in thousands of images."""
    ema_rampup: NonNegative = 0.05
    """The half-life is at most this share of the images so far; 0 for no such limit."""
