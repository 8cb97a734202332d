"""StyleGAN3 (Karras et al. 2021, arXiv:2106.12423): alias-free generators, equivariant to translation (t) and rotation (r).

    python -m experiments.stylegan3                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan3 --config r                 # the same, equivariant to rotation too
    python -m experiments.stylegan3 --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan3 --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.stylegan3 --preset ffhq256 --data.name folder:FFHQ-U    # 256x256, for accelerators
    python -m experiments.stylegan3 --preset auto --data.name folder:PHOTOS       # settings chosen for a set of yours
    python -m experiments.stylegan3 sample --picture rotate     # or translate, walk (moving), sticking, mixing_coarse, ...
    python -m experiments.stylegan3 evaluate                                      # EQ-T, EQ-T_frac and EQ-R in dB

Target of the ffhq256 preset: the paper's table 1 on FFHQ-U at 256x256: config T, FID 4.62 and EQ-T 63.01 dB; config R, FID
4.50, EQ-T 66.65 dB and EQ-R 40.48 dB (25 million images; two days on 8 V100). The preset is that of the authors' ablations at
256x256: half the channels, a batch of 64, no augmentation; --config r takes --blur-sigma 10 --blur-kimg 400 too. On small
images it is no better than StyleGAN2 by Fréchet distance; judge it by its equivariance. At 28 pixels and less there is no EQ-R:
a turn's filter reaches across the whole image.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jgen
from jgen.config import AugmentConfig, DataConfig, Flat, GANConfig, MeshConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.alias_free import AliasFreeConfig
from jgen.config.auto import SetFacts, Why, stylegan3_choice
from jgen.config.gan import ArchitectureConfig

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=1600, save_every=800, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    gan: Flat[GANConfig] = GANConfig(channel_base=128)
    own: Flat[AliasFreeConfig] = AliasFreeConfig()
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    style: Flat[StyleConfig] = StyleConfig(mapping_layers=2, mixing=0.0)
    architecture: Flat[ArchitectureConfig] = ArchitectureConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=1600, save_every=800, sample_every=800, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=32, ema_kimg=5.0),
        own=AliasFreeConfig(layers=7, margin=6),
        style=StyleConfig(mapping_layers=2, mixing=0.0, r1_every=16),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=1600, save_every=800, sample_every=800, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=32, ema_kimg=5.0),
        own=AliasFreeConfig(layers=7, margin=6),
        augmentation=AugmentConfig("ada", ada_kimg=25.0),
        style=StyleConfig(mapping_layers=2, mixing=0.0, r1_every=16),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=64, resolution=256, resize="lanczos", flip=True),
        train=TrainConfig(steps=390_625, save_every=10_000, sample_every=10_000, log_every=100),
        gan=GANConfig(512, 16384, 512, ema_kimg=20.0),
        own=AliasFreeConfig(layers=14, margin=10, d_learning_rate=2.5e-3),
        style=StyleConfig(512, 2, r1_gamma=1.0, r1_every=16, mixing=0.0),
        architecture=ArchitectureConfig(group=4),
    ),
}


def auto(facts: SetFacts, given: DataConfig, accelerator: bool) -> tuple[Config, Why]:
    c, own = stylegan3_choice(facts, given, accelerator)
    config = Config(
        c.data, c.train, gan=c.gan, own=own, augmentation=c.augmentation, style=c.style, architecture=c.architecture
    )
    return config, c.why


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.alias_free_stage import AliasFreeRecipe, alias_free_stage

    c = resolved(config)
    recipe = AliasFreeRecipe(c.gan, c.style, c.own, c.architecture, c.augmentation, c.data, c.sampling)
    return Experiment([alias_free_stage(recipe, c.train)])


def published(file: Path) -> "Published":
    from jgen.recipes.gan.published import stylegan3_file

    return stylegan3_file(file)


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, auto=auto, published=published)
