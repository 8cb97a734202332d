"""A model of images and their captions, which says how well a picture fits a text."""

from dataclasses import dataclass

from jgen.config.ranges import Count, Natural, NonNegative, ShareBelowOne


@dataclass(frozen=True)
class ImageTextConfig:
    """The two encoders, and how their training images are changed."""

    features: Count = 64
    """Numbers of an embedding."""
    channels: tuple[Count, ...] = (32, 64)
    """Width of each level of the image encoder; each but the first halves the resolution."""
    stride: Count = 2
    """Stride of its first convolution."""
    text_width: Count = 64
    """Width of the text encoder."""
    dropout: ShareBelowOne = 0.0
    """Dropout of the image's features, before the last layer."""
    shift: Natural = 0
    """Move each image by up to so many pixels, at random."""
    weight_decay: NonNegative = 0.02
    """Weight decay of AdamW, of matrices and filters alone."""
