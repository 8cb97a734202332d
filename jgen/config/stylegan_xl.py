"""StyleGAN-XL: a stem, and the growth from it."""

from dataclasses import dataclass

from jgen.config.ranges import Count, Natural, NonNegative, Positive


@dataclass(frozen=True)
class StyleGANXLConfig:
    """The generator's stages. Channels of a layer are channel_base / 2 over its cut-off frequency, at most channel_max."""

    z_dim: Count = 64
    """Size of the latent; 64 in the paper."""
    w_dim: Count = 64
    """Size of a style; 512 in the paper."""
    channel_base: Count = 128
    """Channels of a layer are half of this over its cut-off, but at most --channel-max."""
    channel_max: Count = 32
    """Channels of a layer, at most."""
    conditional: bool = True
    """Give both networks the class, by fixed embeddings: class means of pretrained features."""
    stem_side: Count = 8
    """Side of the stem's images, a power of 2 of at least 8; 16 in the paper. Later stages double it up to the set's."""
    stem_layers: Count = 4
    """Layers of the stem before toRGB; 10 in the paper, 7 for small sets."""
    head_layers: Count = 3
    """Layers that each later stage adds before toRGB; 7 in the paper, 4 for small sets."""
    margin: Natural = 4
    """Pixels beyond each edge of the image; 10 in the paper."""
    stem_steps: Count = 600
    """Steps of the stem; train.steps are those of each later stage."""
    learning_rate: Positive = 2.5e-3
    """Learning rate of G's Adam."""
    d_learning_rate: Positive = 2e-3
    """Learning rate of D's Adam."""
    ema_kimg: Positive = 2.0
    """Half-life of G's moving average in thousands of images."""
    ema_rampup: NonNegative = 0.05
    """The half-life is at most this share of the images so far; 0 for no such limit."""
    path_weight: NonNegative = 0.0
    """Weight of path length regularisation in the stem; 2 in the paper, 0 for none."""
    path_kimg: NonNegative = 1000.0
    """Thousands of images of the stem before it begins."""
    guidance: NonNegative = 0.0
    """Weight of classifier guidance of G in stages after the stem; 8 in the paper."""
    guidance_classifier: str = ""
    """The classifier of guidance: cnn:FILE, of `python -m jgen.metrics export`; empty for that of jgen's own for the set."""
    class_file: str = ""
    """A file of weights with the embeddings of the classes, [classes, 320]; empty for means over images of each class."""
