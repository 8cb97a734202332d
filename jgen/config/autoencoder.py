"""Autoencoders: VAEs and their relatives, VQ-VAEs with the prior over their codes, and the first stage of latent diffusion."""

from dataclasses import dataclass
from typing import Annotated, Literal

from jgen.config.ranges import Count, Natural, NonNegative, Positive, Range, ShareBelowOne
from jgen.config.sampling import Label


@dataclass(frozen=True)
class VAESampling:
    """How a VAE is sampled."""

    noise: bool = False
    """Draw pixels from the likelihood rather than show its mean."""
    deviation: NonNegative = 1.0
    """Standard deviation of the latents; below 1 they are nearer to the middle of the prior."""


@dataclass(frozen=True)
class VAEConfig:
    """The kind of autoencoder, its likelihood and its network."""

    kind: Literal["vae", "iwae", "plain", "denoising", "sparse_kl", "sparse_l1"] = "vae"
    """iwae: the importance-weighted bound; the last four are autoencoders without a prior."""
    likelihood: Literal["gaussian", "bernoulli", "logistic"] = "gaussian"
    """Distribution of the pixels; bernoulli binarises the images again at every step."""
    c: Positive = 0.1
    """Variance of the Gaussian: |x - f(z)|^2 / 2c + KL, so small values ask for sharp reconstructions."""
    latents: Count = 16
    """Numbers of a latent."""
    widths: tuple[Count, ...] = (256, 256)
    """Widths of the MLPs' layers."""
    gated: bool = False
    """Use gates in place of the MLPs' activations."""
    channels: tuple[Count, ...] = ()
    """Use convolutions instead of MLPs, with one width for each level."""


@dataclass(frozen=True)
class VAELossConfig:
    """The loss of an autoencoder, and the bound that `evaluate` gives."""

    beta: NonNegative = 1.0
    """Weight of the KL."""
    free_bits: NonNegative = 0.0
    """Nats of each latent that cost nothing."""
    kl_warmup: Natural = 0
    """Steps over which the KL's weight rises."""
    importance_samples: Count = 5
    """Draws of iwae's bound in training."""
    bound_samples: Count = 50
    """Draws of the importance-weighted bound in `evaluate`; a multiple of 10."""
    noise: NonNegative = 0.5
    """Standard deviation of the noise on the input of a denoising autoencoder."""
    sparsity: NonNegative = 0.1
    """Weight of the sparse kinds' penalty."""


@dataclass(frozen=True)
class CodeSampling:
    """How the codes of a VQ-VAE are sampled."""

    temperature: Positive = 1.0
    """Temperature of the codes: below 1, likelier ones."""
    top_k: Natural = 0
    """Draw from the k likeliest codes only; 0 from all."""
    label: Label = -1
    """Class of all images; -1 draws one for each. For a class-conditional prior."""


@dataclass(frozen=True)
class VQVAEConfig:
    """The autoencoder with its codebooks, and its training."""

    levels: Annotated[int, Range(1, 2)] = 1
    """Grids of codes; 2: VQ-VAE-2's coarse and fine ones."""
    stride: Literal[2, 4] = 2
    """Pixels of an image to a code of the finest grid."""
    channels: Annotated[int, Range(2)] = 64
    """Width of the autoencoder."""
    blocks: Natural = 1
    """Residual blocks in each of its parts."""
    block_channels: Count = 32
    """Width inside of a residual block."""
    code_size: Count = 16
    """Numbers of a code's vector."""
    codes: Annotated[int, Range(2)] = 64
    """Codes in each codebook."""
    ema: bool = True
    """Codebooks follow their inputs; else a gradient trains them."""
    beta: NonNegative = 0.25
    """Weight of the commitment."""
    decay: ShareBelowOne = 0.99
    """Decay of the codebooks' moving averages."""
    learning_rate: Positive = 2e-3
    """Learning rate of the autoencoder's Adam."""


@dataclass(frozen=True)
class CodePriorConfig:
    """The PixelCNN prior over the codes, and its training."""

    prior_steps: Count = 1500
    """Updates of the prior."""
    prior_channels: Count = 48
    """Width of the prior."""
    prior_layers: Count = 5
    """Gated layers of the prior."""
    prior_learning_rate: Positive = 2e-3
    """Learning rate of the prior's Adam."""
    conditional: bool = False
    """Give the prior the class."""


@dataclass(frozen=True)
class FirstStageConfig:
    """The autoencoder of latent diffusion, and its losses."""

    first: Literal["kl", "vq"] = "kl"
    """Bottleneck of the autoencoder."""
    first_channels: Count = 16
    """Width of the autoencoder's first level."""
    first_mult: tuple[Count, ...] = (1, 2)
    """Width of its levels as multiples; each but the last halves the resolution."""
    first_blocks: Count = 1
    """Residual blocks a level."""
    first_attention: bool = True
    """With kl: attention on its last level, besides that in the middle."""
    latent_channels: Count = 4
    """Channels of the latents."""
    kl_weight: NonNegative = 1e-3
    """With kl: weight of the KL."""
    codes: Annotated[int, Range(2)] = 256
    """With vq: codes in the codebook."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """Error of the reconstructions: absolute differences, as in the paper, or squared ones. The best guess of the former is
    the median, which for small strokes on an even ground is the ground alone."""
    adversarial: NonNegative = 0.0
    """Weight of a patch discriminator's loss; 0 for none."""
    adversarial_from: Natural = 250
    """Step at which it begins to count."""
    perceptual: NonNegative = 0.0
    """Weight of a perceptual distance, 1 in the paper: LPIPS where its files are given, else one in the features of the small
    classifier that jgen ships for the set."""
    perceptual_trunk: str = ""
    """LPIPS: torchvision's VGG16, AlexNet or SqueezeNet weights, a .pth file."""
    perceptual_heads: str = ""
    """LPIPS: its linear heads, vgg.pth, alex.pth or squeeze.pth of the lpips package."""
