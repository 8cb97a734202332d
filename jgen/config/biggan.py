"""BigGAN's players, the rules of their training, and how they are sampled; R3GAN's too, and moves of latents."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range, Share, ShareBelowOne
from jgen.config.sampling import Label


@dataclass(frozen=True)
class TruncatedSampling:
    """How a generator with batch norm is sampled."""

    label: Label = -1
    """Class of all images; -1 draws one for each. For a conditional model."""
    truncation: NonNegative = 0.0
    """Latents are drawn again while beyond this; 0 is without. It needs statistics=standing."""
    statistics: Literal["running", "standing"] = "running"
    """The batch norms' statistics: those of training, or means over passes with latents as truncated as the images'."""
    passes: Count = 16
    """Passes of standing statistics, each with --pass-size images."""
    pass_size: Count = 32
    """Images of a pass of standing statistics; the passes come before every batch of samples."""


@dataclass(frozen=True)
class InstanceSampling(TruncatedSampling):
    """How a generator of instances is sampled."""

    instance: Annotated[int, Range(-1)] = -1
    """The number of the instance of all images, among those that the run keeps; -1 draws one for each."""


@dataclass(frozen=True)
class BigGANConfig:
    """BigGAN's players and rules of training."""

    network: Literal["biggan", "deep", "sn_dcgan"] = "biggan"
    """BigGAN's blocks, BigGAN-deep's for both players, or SN-GAN's standard CNN, which CS-GAN's authors train."""
    width: Count = 8
    """The author's ch: features have 4 to 16 times as many channels at 4x4; of sn_dcgan 8 times at an eighth of the side."""
    z_dim: Count = 32
    """Size of the latent; each block has a part of it."""
    shared_dim: Count = 16
    """Size of the classes' shared embedding."""
    slope: ShareBelowOne = 0.0
    """Slope of both players' activations below 0; 0 is ReLU, and LOGAN has 0.2. For biggan and deep."""
    attention: tuple[Count, ...] = (8,)
    """Sides of the features that attention follows, in both players; it needs 8 channels."""
    hierarchical: bool = True
    """Give every block a part of z, and the classes a shared embedding; else z goes to the first layer, as in SAGAN."""
    shared: bool = False
    """One embedding of the classes for all norms even without hierarchical; else every norm then has its own."""
    conditional: bool = True
    """Give both networks the class."""
    head: Literal["projection", "auxiliary", "discriminative", "twin", "multi_hinge", "contrastive", "data_to_data"] = (
        "projection"
    )
    """How D judges classes: projection, or by heads as in AC-GAN, ADC-GAN, TAC-GAN, MHingeGAN, ContraGAN and ReACGAN."""
    class_weight: NonNegative = 1.0
    """Weight of the heads' losses."""
    initializer: Literal["ortho", "N02", "xavier", "lecun"] = "ortho"
    """How all kernels begin: orthogonal, N(0, 0.02), Xavier's, or LeCun's."""
    ortho: NonNegative = 0.0
    """Strength of the orthogonal regularisation of both players' weights; the author's scripts have 0."""
    d_steps: Count = 1
    """Steps of D, each with its own images, for each of G; train.steps counts those of D."""
    g_rate: Positive = 5e-4
    """Learning rate of G's Adam."""
    d_rate: Positive = 1e-3
    """Learning rate of D's Adam."""
    beta_1: ShareBelowOne = 0.0
    """Decay of Adam's first moments."""
    beta_2: ShareBelowOne = 0.99
    """Decay of Adam's second moments."""
    epsilon: Positive = 1e-8
    """Adam's epsilon."""
    spectral: bool = True
    """Divide the weights of both players, of sn_dcgan of D, by their greatest singular value (spectral normalisation)."""
    sn_epsilon: Positive = 1e-12
    """Epsilon of spectral normalisation."""
    augment: Literal["none", "diffaug"] = "none"
    """The augmentation of what D sees."""
    ema: ShareBelowOne = 0.99
    """Decay of the moving average of G, for each step of G."""
    ema_start: Natural = 100
    """Step of G before which the moving average copies the weights."""
    ema_statistics: bool = False
    """Average the state of G's layers too, batch statistics and singular vectors, as BigGAN's author does; else samples take
    those of the last step."""


BIGGAN_CIFAR10 = BigGANConfig(
    width=64, z_dim=128, hierarchical=False, attention=(), initializer="N02", d_steps=4, g_rate=2e-4, d_rate=2e-4,
    beta_2=0.999, sn_epsilon=1e-8, ema=0.9999, ema_start=1000, ema_statistics=True,
)  # fmt: skip
"""The settings of BigGAN's author for CIFAR-10 (ajbrock/BigGAN-PyTorch), which ADC-GAN's take over."""


@dataclass(frozen=True)
class InstanceConfig:
    """IC-GAN's instances."""

    extractor: str = ""
    """The frozen network whose features describe instances, by its name for metrics; none given: the classifier that ships for
    the set, else EfficientNet-Lite0 (its 1,280 features stand in for those of the authors' SwAV)."""
    neighbours: Count = 20
    """k: D's real images are drawn from so many nearest neighbours of an instance."""
    instances: Count = 500
    """Instances that the run keeps, chosen by k-means, and is sampled with."""
    feature_dim: Count = 32
    """Size of the embedding of an instance's features."""


@dataclass(frozen=True)
class CutMixConfig:
    """U-Net GAN's mixed images."""

    cutmix: Share = 0.5
    """Probability that a step's D learns from mixed images, after the warm-up."""
    cutmix_warmup: Natural = 500
    """Steps in which --cutmix rises to its value."""
    consistency_weight: NonNegative = 1.0
    """Weight of the consistency of a mixed image's pixels and its parts'."""


@dataclass(frozen=True)
class LatentMoveConfig:
    """How CS-GAN's latents are moved before both players' updates."""

    move_steps: Natural = 3
    """Steps of a move; 0 moves none, for comparison."""
    move_size: Positive = 0.01
    """The first size of a step, which is learnt with G."""
    cost_weight: NonNegative = 3.0
    """Weight of the squared distance of a move, added to G's loss."""


@dataclass(frozen=True)
class NaturalMoveConfig:
    """How LOGAN's latents are moved before both players' updates."""

    form: Literal["paper", "studiogan"] = "paper"
    """paper: so many steps as the next option says. studiogan: one, as that code takes whatever its option says."""
    move_steps: Natural = 1
    """Steps of a move; 0 moves none, for comparison."""
    move_size: Positive = 0.9
    """alpha, the scale of a step."""
    damping: NonNegative = 5.0
    """beta."""
    moved: Share = 0.8
    """Share of a batch that moves."""
    cost_weight: NonNegative = 0.1
    """Weight of the squared distance of a move, added to G's loss."""


@dataclass(frozen=True)
class MovedSampling:
    """How a generator whose latents moved in training is sampled."""

    label: Label = -1
    """Class of all images; -1 draws one for each. For a conditional model."""
    move: bool = False
    """Move the latents in sampling too, as CS-GAN's authors do; each image's alone."""


@dataclass(frozen=True)
class R3GANConfig:
    """R3GAN's players, and the values that its schedules begin and end at."""

    width: Count = 16
    """Channels of every stage."""
    group_size: Count = 8
    """Channels of a group, of the expanded width."""
    blocks: Count = 1
    """Residual blocks a stage."""
    z_dim: Count = 32
    """Size of the latent."""
    embedding: Count = 32
    """Size of the classes' embeddings."""
    conditional: bool = False
    """Give both networks the class."""
    rates: tuple[Positive, Positive] = (1e-3, 2.5e-4)
    """Learning rate of Adam, for both players: its first and last value, as --anneal-kimg says."""
    gammas: tuple[NonNegative, NonNegative] = (0.5, 0.05)
    """Weight of R1 and R2: its first and last value."""
    beta_2: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.99)
    """Decay of Adam's second moments: its first and last value."""
    ema_kimg: tuple[NonNegative, NonNegative] = (0.0, 5.0)
    """Half-life of G's moving average, in thousands of images: its first and last value."""
    augment_p: tuple[Share, Share] = (0.0, 0.0)
    """Strength of ADA's augmentation: its first and last value."""
    anneal_kimg: NonNegative = 0.0
    """Thousands of images in which values go from the first to the last, along half a cosine; 0 for those of the run."""
