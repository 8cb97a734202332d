"""Encoders of images into the styles of a generator, how they are trained, and the options of the commands for pictures."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jgen.config.ranges import Count, Items, Natural, NonNegative, Positive, Range, Seed, Share

Levels = Annotated[tuple[Count, ...], Items((4,))]
"""One for each level of an encoder's trunk."""


@dataclass(frozen=True)
class EncoderConfig:
    """pSp's encoder or e4e's, and its losses. Weights are the authors'."""

    gan: str = ""
    """A run of a GAN with styles, whose styles are sought; without, one is trained first."""
    gan_steps: Count = 2400
    """Steps of the GAN that is trained first."""
    encoder: Literal["psp", "e4e"] = "psp"
    """pSp gives every layer a style of its own; e4e gives one style and small deltas, which edit better."""
    sees: Literal["images", "sketches"] = "images"
    """Show the encoder images, or sketches of them (their edges), from which it makes the whole picture."""
    channels: Levels = (16, 32, 64, 64)
    """Widths of the trunk's levels, each at half the side of the one before; the authors' are 64, 128, 256, 512."""
    units: Levels = (1, 1, 1, 1)
    """Residual units of each level; the authors' are 3, 4, 14, 3."""
    side: Natural = 0
    """Side, in pixels, at which the encoder sees images; the authors' is 256. 0 is that of the images, which is the most."""
    encoder_learning_rate: Positive = 1e-3
    l2_weight: NonNegative = 1.0
    perceptual_weight: NonNegative = 0.8
    """Weight of the distance of features; 0 for none."""
    extractor: str = ""
    """The features' network, as of evaluate --extractor; the set's own unless given."""
    w_norm_weight: NonNegative = 0.005
    """Weight of the distance from the mean style, for psp."""
    delta_weight: NonNegative = 2e-4
    """Weight of the deltas' size, for e4e."""
    w_adversarial_weight: NonNegative = 0.1
    """Weight of the loss against the discriminator of styles, for e4e."""
    delta_from: Natural = 500
    """Steps before e4e's first delta; the authors' are 20,000."""
    delta_every: Count = 50
    """Steps between two of e4e's deltas; the authors' are 2,000."""
    w_d_learning_rate: Positive = 2e-5
    w_r1_gamma: NonNegative = 10.0
    """Weight of the R1 penalty of e4e's discriminator; 0 for none."""
    w_r1_every: Count = 16
    """Steps between R1 penalties."""
    pool: Count = 50
    """Earlier codes that e4e's discriminator sees again."""
    text: bool = False
    """Train a text encoder into the same space, of a set with captions (TediGAN)."""
    text_width: Count = 64
    """Width of the text encoder."""
    text_learning_rate: Positive = 1e-3
    text_weight: NonNegative = 1.0
    """Weight of its ranking loss, beside the distance of a caption's style from its picture's."""
    text_margin: NonNegative = 0.2
    """By how much a pair must be more alike than wrong ones."""


Files = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]
Method = Literal["", "z", "w", "w_plus", "encoder", "encoder_plus", "pti"]


@dataclass(frozen=True)
class Inversion:
    """How pictures of yours are brought into the space of styles."""

    image: Files = ()
    """A picture file; --image again for more. It is fitted to the run's size."""
    method: Method = ""
    """A latent (z), one style (w) or one for each layer (w_plus) by optimisation, the run's encoder alone or with optimisation
    after it (encoder_plus), or a generator tuned to each picture (pti). The encoder where the run has one, else w_plus."""
    extractor: str = ""
    """The network that says how unlike two pictures look: as of evaluate --extractor, or lpips:TRUNK:HEADS, LPIPS by the files
    of its authors; the set's own unless given."""
    inversion_steps: Count = 300
    """Steps of each optimisation of styles."""
    noise_maps: bool = True
    """Seek the noise inputs too, in z, w and w_plus, of a generator that has them (StyleGAN and StyleGAN2)."""
    from_class: Annotated[int, Range(-1)] = -1
    """Begin z, w and w_plus at the mean style of this class, of a class-conditional generator; -1 for that of all."""
    domain_weight: NonNegative = 2.0
    """How firmly encoder_plus holds styles to what the encoder makes of their picture. With 0 the picture alone counts."""
    tuning_steps: Count = 1000
    """Steps of pti, after those that find its style; 350 at most in the paper,"""
    tuning_rate: Positive = 3e-3
    """their learning rate, 3e-4 in the paper, and"""
    locality_weight: NonNegative = 0.0
    """the weight of its locality term, which holds the pictures of other styles; 0.1 in the paper, 0 for none."""


@dataclass(frozen=True)
class Edit:
    """A direction, and how far pictures are moved along it."""

    direction: str = "pca:0"
    """pca:N, the N-th principal component of styles (GANSpace), in deviations; sefa:N, the N-th direction of the weights
    (SeFa); NAME or NAME:VALUE, from few to many of an attribute of the run's set, such as tone, or to one value of it, such as
    label:3 (InterFaceGAN; needs an encoder); or a .npy file of one direction."""
    by: Annotated[tuple[float, ...], Items()] = (2.0,)
    """How far; an edit for each."""
    layers: str = "all"
    """Rows that are moved: coarse, middle, fine, or numbers such as 0-3,5."""
    measure: bool = False
    """Say which attributes of the run's set each edit changed, by a judge that learns from its examples."""
    keep: tuple[str, ...] = ()
    """Attributes whose own directions are taken out of it, so that they stay."""


@dataclass(frozen=True)
class Mix:
    """The rows of the second picture's styles that the first takes."""

    rows: str = "coarse"
    """coarse, middle, fine, or numbers such as 0-3,5."""


@dataclass(frozen=True)
class ByText:
    """A text that pictures are made or edited by (TediGAN)."""

    text: str = ""
    """As the captions of the run's set are written, such as "a red A on blue". Needs a run of experiments.inversion that has a
    text encoder, or a scorer, or both."""
    from_text: str = ""
    """A text that says what the edited picture shows: its rows then move by what the two texts' styles differ by, in place of
    taking the text's. It leaves more of the picture, and needs the text encoder."""
    text_rows: str = ""
    """Rows that follow the text: coarse, middle, fine, all, or numbers; unless given all but coarse of a picture that is
    edited, and all with --from-text or of one that is made."""
    scorer: str = ""
    """A run of experiments.image_text, or a file of CLIP's weights: rows are moved until the picture fits the text."""
    vocabulary: str = ""
    """CLIP's table of merges, bpe_simple_vocab_16e6.txt.gz; goes with a file of its weights."""
    text_steps: Count = 200
    """Steps of the optimisation by the scorer."""
    text_rate: Positive = 0.01
    """Learning rate of the optimisation by the scorer."""
    text_score_weight: NonNegative = 2.0
    """Weight of the text in the optimisation by the scorer."""
    text_pixel_weight: NonNegative = 1.0
    """Weight of the edited picture's own pixels there; less for a text that changes all of it, such as its ground."""


@dataclass(frozen=True)
class Generate:
    """Pictures that are made by a text, a sketch or a class."""

    num: Count = 8
    """Pictures."""
    seed: Seed = 0
    """Picture i depends on (seed, i) alone."""
    variety: Share = 0.3
    """How much of a random style's distance from the mean is added: 0 makes all pictures the same."""
    sketch: str = ""
    """Begin from the style of a sketch, a picture file with dark lines on white, by an encoder of sketches (--sees)."""
    label: Annotated[int, Range(-1)] = -1
    """Begin from the mean style of this class's images, by the run's encoder."""


@dataclass(frozen=True)
class NoiseInversion:
    """How pictures of yours are brought to the noise of a diffusion model: by DDIM, run upwards."""

    image: Files = ()
    """A picture file; --image again for more. It is fitted to the run's size."""
    inversion_steps: Count = 100
    """Steps of DDIM to noise and back; at most those of the model's chain."""
    from_label: Annotated[int, Range(-1)] = -1
    """Class that the pictures show, for a class-conditional model; -1 for none, of a model that was trained with drop_label."""


@dataclass(frozen=True)
class NoiseEdit:
    """How pictures are changed."""

    method: Literal["", "sdedit", "inpaint", "ddim"] = ""
    """sdedit: from the noise level --edit-from on. inpaint: the part that --mask or --mask-image names is made again (RePaint
    with --sampler ddpm --resamplings 10). ddim: brought to noise by DDIM, and back as the class or the text that is named.
    Inpaint where a mask is named, else sdedit."""
    mask_image: str = ""
    """A picture file, white where inpaint removes, in place of --mask."""
    seed: Seed = 0
    """The results of a picture depend on it and the picture's number alone."""


@dataclass(frozen=True)
class NoiseMix:
    """Pictures between two, along the arc between their noise."""

    by: Annotated[tuple[Share, ...], Items()] = (0.25, 0.5, 0.75)
    """Shares of the way from the first picture to the second; a mix for each."""
