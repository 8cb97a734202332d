"""StyleGAN2 (Karras et al. 2020, arXiv:1912.04958), with adaptive augmentation (StyleGAN2-ADA, arXiv:2006.06676).

    python -m experiments.stylegan2                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan2 --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan2 --preset cifar10           # StyleGAN2-ADA's run, for accelerators
    python -m experiments.stylegan2 --preset ffhq256 --data.name folder:FFHQ      # 256x256, the same
    python -m experiments.stylegan2 --preset auto --data.name folder:PHOTOS       # settings chosen for a set of yours
    python -m experiments.stylegan2 sample --picture mixing_coarse                # or truncation, noise, interpolation, ...

Target of the cifar10 preset: FID 2.92, unconditional (StyleGAN2-ADA, table 2, with tuning; 100 million images; 50,000 samples
against the training images; 2.42 is of the class-conditional network, --conditional). Target of ffhq256: FID 3.7 or so without
ADA at 140,000 images (flips are counted), after 25 million images: read from the paper's figure 7, which gives 5.28 at 70,000
without ADA, and 4.30 and 3.81 with it. Those are of images that a box filter made smaller. One to two days on 8 V100.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jgen
from jgen.config import AugmentConfig, DataConfig, Flat, GANConfig, MeshConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.auto import SetFacts, Why, stylegan2_choice
from jgen.config.gan import ArchitectureConfig

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=2800, save_every=1400, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    gan: Flat[GANConfig] = GANConfig()
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    style: Flat[StyleConfig] = StyleConfig(path_weight=2.0)
    architecture: Flat[ArchitectureConfig] = ArchitectureConfig()


PRESETS = {
    "digits": Config(
        train=TrainConfig(steps=6400, save_every=1600, sample_every=0),
        gan=GANConfig(ema_kimg=5.0),
        style=StyleConfig(r1_every=16),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        style=StyleConfig(r1_every=16, path_weight=2.0),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        augmentation=AugmentConfig("ada", ada_kimg=40.0),
        style=StyleConfig(r1_every=16, path_weight=2.0),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64),
        train=TrainConfig(steps=1_562_500, save_every=10_000, sample_every=10_000, log_every=100),
        gan=GANConfig(512, 16384, 512, ema_kimg=500.0),
        augmentation=AugmentConfig("ada"),
        style=StyleConfig(512, 2, r1_gamma=0.01, r1_every=16, mixing=0.0),
        architecture=ArchitectureConfig(discriminator="orig", group=32),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=64, resolution=256, resize="box", flip=True),
        train=TrainConfig(steps=390_625, save_every=10_000, sample_every=10_000, log_every=100),
        gan=GANConfig(512, 16384, 512, ema_kimg=20.0, ema_rampup=0.0),
        style=StyleConfig(512, 8, r1_every=16, path_weight=2.0),
        architecture=ArchitectureConfig(group=8),
    ),
}


def auto(facts: SetFacts, given: DataConfig, accelerator: bool) -> tuple[Config, Why]:
    c = stylegan2_choice(facts, given, accelerator)
    config = Config(c.data, c.train, gan=c.gan, augmentation=c.augmentation, style=c.style, architecture=c.architecture)
    return config, c.why


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan import stylegan2_stage

    c = resolved(config)
    return Experiment([stylegan2_stage(c.gan, c.augmentation, c.style, c.architecture, c.data, c.train, c.sampling)])


def published(file: Path) -> "Published":
    from jgen.recipes.gan.published import stylegan2_file

    return stylegan2_file(file)


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, auto=auto, published=published)
