"""PixelCNNs and DCTransformer: their networks, what they model, and how they are sampled."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, Positive, Range, ShareBelowOne
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


@dataclass(frozen=True)
class DCTSampling:
    """How the tuples of DCT images are drawn."""

    temperature: Positive = 1.0
    """Temperature of channels, positions and values: below 1, likelier ones."""
    top_k: Natural = 0
    """Draw from the k likeliest choices only; 0 from all."""
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""
    frequencies: Count = 1
    """Frequencies of each block that the picture of upsampled images is given."""


@dataclass(frozen=True)
class DCTransformerConfig:
    """The JPEG-style front end, the windows over its sequences, and the transformer."""

    quality: Annotated[int, Range(1, 100)] = 75
    """JPEG's quality, from 1 to 100: what is modelled are the quantised coefficients."""
    block: Count = 8
    """Side of the DCT's blocks, which must divide the images' sides; JPEG's is 8."""
    chunk: Count = 896
    """Tuples that a decoder sees at a time."""
    overlap: Natural = 128
    """Tuples of a chunk, the first ones, that are context from the chunk before."""
    length: Natural = 0
    """Longest sequence of an image; 0 is as many as it has coefficients. The end of longer ones is not learned."""
    patch: Count = 1
    """The encoder's tokens are patches of so many blocks a side."""
    width: Count = 512
    """Width of the transformers."""
    heads: Count = 8
    """Heads of attention."""
    encoder_layers: Count = 3
    """Layers of the encoder, which reads the DCT image so far."""
    channel_layers: Count = 3
    """Layers of the decoder of channels."""
    position_layers: Count = 3
    """Layers of the decoder of positions."""
    value_layers: Count = 3
    """Layers of the decoder of values."""
    dropout: ShareBelowOne = 0.0
    """Dropout of the outputs of attention and MLPs."""
    conditional: bool = False
    """Give the network the class."""
