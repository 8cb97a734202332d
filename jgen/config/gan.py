"""Generators and discriminators: their sizes, what the discriminator sees, and how styles are sampled."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range, Share, ShareBelowOne, Traced
from jgen.config.sampling import Label


@dataclass(frozen=True)
class StyleSampling:
    """How a network with styles is sampled."""

    label: Label = -1
    """Class of all images; -1 draws one for each. For a conditional model."""
    psi: Annotated[float, Traced()] = 1.0
    """Truncation: 1 is without, 0 the mean image."""
    noise: Literal["gaussian", "none", "uniform", "salt_and_pepper", "perlin", "octaves", "simplex"] = "gaussian"
    """The kind of noise that the noise inputs get."""


@dataclass(frozen=True)
class GANConfig:
    """Two networks that work in powers of 2, and their training."""

    z_dim: Count = 64
    """Size of the latent."""
    channel_base: Count = 256
    """Channels of a resolution are this over its side, but at most --channel-max."""
    channel_max: Count = 32
    """Channels of a resolution, at most."""
    conditional: bool = False
    """Give both networks the class."""
    learning_rate: Positive = 2.5e-3
    """Learning rate of Adam, for both players."""
    ema_kimg: Positive = 2.0
    """Half-life of G's moving average in thousands of images."""
    ema_rampup: NonNegative = 0.05
    """The half-life is at most this share of the images so far; 0 for no such limit."""


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of the images that the discriminator sees."""

    augment: Literal["none", "ada", "diffaug"] = "none"
    """The augmentation of reals and fakes: ada adapts its strength."""
    ada_target: Annotated[float, Range(-2, 1)] = 0.6
    """Mean sign of D's logits of reals at which ada's strength rests; below -1 it grows without rest."""
    ada_kimg: Positive = 500.0
    """Thousands of images in which it could go from 0 to 1."""


@dataclass(frozen=True)
class StyleConfig:
    """The mapping and the regularisation of a style-based GAN."""

    w_dim: Count = 64
    """Size of a style."""
    mapping_layers: Count = 4
    mapping_lr_mul: Positive = 0.01
    """The mapping's learning rate as a share of the others'."""
    r1_gamma: NonNegative = 1.0
    """Weight of the R1 penalty; 0 for none."""
    r1_every: Count = 8
    """Steps between R1 penalties."""
    path_weight: NonNegative = 0.0
    """Weight of path length regularisation; 0 for none."""
    path_every: Count = 4
    """Steps between path length penalties."""
    mixing: Share = 0.9
    """Probability of style mixing."""


@dataclass(frozen=True)
class GrowthConfig:
    """Progressive growing: a stage a resolution."""

    first_steps: Count = 300
    """Steps of the first stage; train.steps are those at each larger resolution."""
    last_steps: Natural = 0
    """Steps at the full resolution; 0 for as many as at the others."""
    fade: Share = 0.5
    """Share of a stage in which its level comes in."""
    fade_images: Natural = 0
    """Images in which a stage's level comes in; 0 for the share of --fade."""
    first_side: Literal[4, 8] = 4
    """Side of the first stage's images."""
    stage_steps: tuple[Count, ...] = ()
    """In place of first_steps, train.steps and last_steps, the steps of each stage, smallest images first."""
    stage_batches: tuple[Count, ...] = ()
    """In place of data.batch_size, the images a step of each stage."""
    stage_rates: tuple[Positive, ...] = ()
    """In place of the learning rate, that of each stage."""


@dataclass(frozen=True)
class ConvGANConfig:
    """Convolutional players, the adversarial loss, and what is added to it."""

    network: Literal["dcgan", "resnet"] = "dcgan"
    """DCGAN's shape, or the ResNets of WGAN-GP."""
    width: Count = 32
    """Width of the largest features; each smaller level of dcgan has twice as many, of resnet as many."""
    z_dim: Count = 64
    """Size of the latent."""
    loss: Literal["minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"] = "non_saturating"
    """The adversarial loss."""
    penalty: Literal["none", "clip", "gp", "dragan", "r1", "r1_r2"] = "r1"
    """On D: its weights clipped, or a penalty of its gradient at mixed (gp), disturbed (dragan), real or all images."""
    penalty_weight: NonNegative = 0.0
    """Weight of the gradient penalties; with clip the greatest weight. 0 takes the papers': 10 of gp and dragan, 0.01 of clip,
    and 1 as R1's gamma."""
    critic_steps: Count = 1
    """Steps of D for each of G; train.steps counts those of D."""
    generator_batches: Count = 1
    """Fakes of G's updates, as a multiple of the batch."""
    conditioning: Literal["none", "concat", "projection", "auxiliary"] = "none"
    """How D takes the class, or names it."""
    augment: Literal["none", "diffaug", "ada", "diffusion"] = "none"
    """The augmentation of what D sees, reals and fakes alike: images moved, cut and recoloured; the same with a probability
    that adapts (ADA); or diffused for a time that D knows, the longest of which adapts (Diffusion-GAN)."""
    adapt_target: Annotated[float, Range(-2, 1)] = 0.6
    """Mean sign of D's logits of reals at which what adapts rests."""
    adapt_kimg: Positive = 100.0
    """Thousands of images in which it could go from least to most."""
    consistency: NonNegative = 0.0
    """Weight of balanced consistency (bCR, Zhao et al. 2020, arXiv:2002.04724; there 10): D gives an image, real or fake, the
    logit that it gives the image moved and flipped."""
    learning_rate: Positive = 1e-3
    """Learning rate of Adam, for both players."""
    final_learning_rate: Share = 1.0
    """Share of the learning rate that it falls to, linearly, by the last step."""
    beta_1: ShareBelowOne = 0.0
    """Decay of Adam's first moment."""
    beta_2: ShareBelowOne = 0.99
    """Decay of Adam's second moment."""
    ema: ShareBelowOne = 0.99
    """Decay of G's moving average, reached as (1 + step) / (10 + step) grows."""


@dataclass(frozen=True)
class CriticConfig:
    """ProGAN's critic: WGAN-GP with drift."""

    penalty_weight: NonNegative = 10.0
    """Weight of the gradient penalty."""
    slope: Positive = 1.0
    """The norm that the gradient is held at; the penalty is divided by its square."""
    group: Natural = 4
    """Images over which D sees their standard deviation; 0 for the whole batch."""
    drift: NonNegative = 1e-3
    """Weight of the squares of D's logits of reals."""


@dataclass(frozen=True)
class ArchitectureConfig:
    """StyleGAN2's architectures."""

    generator: Literal["skip", "resnet", "orig"] = "skip"
    """How RGB images are made on the way up."""
    discriminator: Literal["resnet", "skip", "orig"] = "resnet"
    """How the discriminator takes the image on the way down."""
    group: Count = 4
    """Images over which D sees their standard deviation; it must divide the batch."""
    conv_clamp: NonNegative = 0.0
    """The largest number that a layer of StyleGAN2's gives, 256 in the authors' half precision; 0 for no such limit."""
