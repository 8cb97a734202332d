"""Latent diffusion (Rombach et al. 2022, arXiv:2112.10752), with a U-Net or a DiT (Peebles & Xie 2022, arXiv:2212.09748).

    python -m experiments.latent_diffusion                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --first vq --prior dit     # codes rather than a KL, a transformer
    python -m experiments.latent_diffusion --condition class
    python -m experiments.latent_diffusion --preset glyphs            # from captions: minutes to hours, as long as you let it
    python -m experiments.latent_diffusion --preset glyphs --data.captions minilm     # captions as features of MiniLM
    python -m experiments.latent_diffusion sample --prompt "a red A on blue"
    python -m experiments.latent_diffusion evaluate --num 1024        # how often captions or classes are obeyed
    python -m experiments.latent_diffusion --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --preset imagenet256       # DiT-XL/2, for accelerators

Two stages, one command: the autoencoder, then the diffusion of its latents; --train.begin-from RUN/autoencoder takes that of
an earlier run, for another prior. Target of the imagenet256 preset: FID 2.27 with guidance 1.5 (DiT, table 4), after 7 million
steps of 256 images. Its autoencoder is to have --perceptual 1, and LPIPS's files; of four latent channels DiT's authors guide
three, and jgen all.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from experiments._diffusion import ChainKnobs, ChainName, Prediction
from experiments._first_stage import autoencoder_stage, first_stage
from experiments._prior import Prior
from experiments._sampling import SamplerName, TimedSolver
from jgen.config import DataConfig, TrainConfig, check_share

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Sampling(TimedSolver):
    sampler: SamplerName = "dpm"
    steps: int = 25
    prompt: str = ""
    """Caption of all images, for a model of captions; empty takes those of held-out images."""


@dataclass(frozen=True)
class Config(ChainKnobs):
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=400, log_every=10, save_every=200, sample_every=200)
    """Of the autoencoder."""
    prior_steps: int = 600
    """Of the diffusion."""
    sampling: Sampling = Sampling()
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    prediction: Prediction = "v"
    """What the network predicts."""
    first: Literal["kl", "vq"] = "kl"
    """Bottleneck of the autoencoder."""
    first_channels: int = 16
    """Width of the autoencoder's first level."""
    first_mult: tuple[int, ...] = (1, 2)
    """Width of its levels; each but the last halves the resolution."""
    first_blocks: int = 1
    first_attention: bool = True
    """Of kl: attention on its last level, besides that in the middle."""
    latent_channels: int = 4
    kl_weight: float = 1e-3
    codes: int = 256
    """Of vq."""
    pixel_loss: Literal["l1", "l2"] = "l1"
    """Of reconstructions: absolute differences, as in the paper, or squared ones. The best guess of the former is the median,
    which for small strokes on an even ground is the ground alone."""
    adversarial: float = 0.0
    """Weight of a patch discriminator's loss; 0 for none."""
    adversarial_from: int = 250
    """Step at which it begins to count."""
    perceptual: float = 0.0
    """Weight of a perceptual distance, 1 in the paper: LPIPS where its files are given, else one in the features of the small
    classifier that jgen ships for the set."""
    perceptual_trunk: str = ""
    """LPIPS: torchvision's VGG16 or AlexNet weights, a .pth file."""
    perceptual_heads: str = ""
    """LPIPS: its linear heads, vgg.pth or alex.pth of the lpips package."""
    scale: float = 0.0
    """Latents are multiplied by it; 0 measures 1 / their deviation on the first images."""
    prior: Literal["unet", "dit"] = "unet"
    learn_variance: bool = False
    """Of the prior: learn the variance of the steps back too, by the hybrid loss (see experiments.improved_ddpm)."""
    condition: Literal["none", "class", "text"] = "none"
    drop_label: float = 0.1
    """Share of classes or captions left out in training, for classifier-free guidance."""
    patch: int = 1
    """Of DiT, in latents."""
    depth: int = 4
    """Blocks of DiT."""
    width: int = 128
    """Of DiT."""
    text_width: int = 64
    """Of the caption encoder: of words, or of the features that --data.captions minilm gives."""
    attention: tuple[int, ...] = (1,)
    channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2)
    head_channels: int = 0


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500),
        prior_steps=4000,
        first_mult=(1, 2, 2),
        channel_mult=(1,),
        num_res_blocks=2,
        channels=96,
        learning_rate=1e-3,
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2000, log_every=10, save_every=500, sample_every=500),
        prior_steps=4000,
        first_mult=(1, 2, 2),
        pixel_loss="l2",
        condition="text",
        channels=96,
        channel_mult=(1, 2),
        learning_rate=1e-3,
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=256, resolution=256, flip=True),
        train=TrainConfig(steps=250_000, log_every=100, save_every=10_000, sample_every=10_000),
        prior_steps=7_000_000,
        sampling=Sampling("ddpm", steps=250, guidance=1.5, variance="learned_range"),
        learn_variance=True,
        schedule="linear",
        prediction="eps",
        first_channels=128,
        first_mult=(1, 2, 4, 4),
        first_blocks=2,
        first_attention=False,
        kl_weight=1e-6,
        adversarial=0.5,
        adversarial_from=50_001,
        scale=0.18215,
        prior="dit",
        condition="class",
        patch=2,
        depth=28,
        width=1152,
        learning_rate=1e-4,
        warmup=0,
        final_learning_rate=1.0,
        clip=0.0,
        ema=0.9999,
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment

    config = replace(config, data=resolve(config.data))
    if config.conditional:
        raise UserError("conditional=True: say --condition class, or text")
    check_share(below=True, drop_label=config.drop_label)
    net = first_stage(config)
    first = autoencoder_stage(config, net)
    return Experiment([first, Prior(config, net, first).stage()])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
