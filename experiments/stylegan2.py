"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), with adaptive augmentation (StyleGAN2-ADA, arXiv:2006.06676).

    python -m experiments.stylegan2                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan2 --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan2 --preset cifar10           # StyleGAN2-ADA's run, for accelerators
    python -m experiments.stylegan2 --preset ffhq256 --data.name folder:FFHQ      # 256x256, the same
    python -m experiments.stylegan2 sample --picture mixing_coarse                # or truncation, noise, interpolation, ...

Target of the cifar10 preset: FID 2.42 class-conditional with tuning, 2.92 unconditional (StyleGAN2-ADA, table 2; 100 million
images). Of ffhq256: FID 4.3 at 25 million images without ADA at 140,000 images (figure 7). One to two days on 8 V100.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from experiments._style import FASHION_MNIST, PAPER_STYLES, Knobs
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config(Knobs):
    path_weight: float = 2.0
    """Weight of path length regularisation; 0 for none."""
    generator: Literal["skip", "resnet", "orig"] = "skip"
    """How RGB images are made on the way up."""
    discriminator: Literal["resnet", "skip", "orig"] = "resnet"
    group: int = 4
    """Images over which D sees their standard deviation; it must divide the batch."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        **FASHION_MNIST,
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        r1_every=16,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=1_562_500, save_every=10_000, sample_every=10_000, log_every=100),
        **{**PAPER_STYLES, "mapping_layers": 2},
        r1_gamma=0.01,
        r1_every=16,
        path_weight=0.0,
        mixing=0.0,
        ema_kimg=500.0,
        augment="ada",
        discriminator="orig",
        group=32,
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=64, resolution=256, flip=True),
        train=TrainConfig(steps=390_625, save_every=10_000, sample_every=10_000, log_every=100),
        **PAPER_STYLES,
        r1_every=16,
        ema_kimg=20.0,
        ema_rampup=0.0,
        group=8,
    ),
}


def build(config: Config) -> "Experiment":
    from experiments._gan import shape_of
    from experiments._style_model import family, style_stage
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.models.gan.stylegan2 import Discriminator, Generator, noise_planes

    config = replace(config, data=resolve(config.data))
    side, channels, classes = shape_of(config.data, config.conditional)
    shared = (config.channel_base, config.channel_max)
    g = Generator(
        config.z_dim,
        classes,
        config.w_dim,
        side,
        channels,
        config.mapping_layers,
        config.mapping_lr_mul,
        *shared,
        config.generator,
    )
    d = Discriminator(classes, side, channels, *shared, config.discriminator, group=config.group)
    return Experiment([style_stage(config, "stylegan2", family(g, d, config, noise_planes(side)))])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
