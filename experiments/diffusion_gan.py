"""Diffusion-GAN (Wang et al. 2022, arXiv:2206.02262): StyleGAN2 or Projected GAN with a diffusion of what D sees.

    python -m experiments.diffusion_gan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.diffusion_gan --distribution uniform --augment ada
    python -m experiments.diffusion_gan --base projected           # noise on the feature maps of Projected GAN
    python -m experiments.diffusion_gan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.diffusion_gan --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.diffusion_gan --preset cifar10           # Diffusion-StyleGAN2, for accelerators
    python -m experiments.diffusion_gan --preset cifar10_projected # Diffusion-ProjectedGAN, for accelerators

The number of steps T adapts: metrics show it as the run goes on. Options of the other base are without effect.

Target of cifar10: FID 3.19 (table 2); of cifar10_projected: FID 2.54 (table 3). Both have the options of the authors' commands:
50 million images, 64 at a time, mirrored as their default is; the second's target of D's sign is 0.45. With --augment ada the
authors' code sets ADA's p to the diffusion's, at most 0.25; here ADA has its own.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import AugmentConfig, DataConfig, Flat, GANConfig, MeshConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.diffusion_gan import DiffusionGANConfig
from jgen.config.gan import ArchitectureConfig
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=2400, save_every=1200, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    diffusion: Flat[DiffusionGANConfig] = DiffusionGANConfig(diffusion_kimg=20.0)
    gan: Flat[GANConfig] = GANConfig()
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    style: Flat[StyleConfig] = StyleConfig()
    architecture: Flat[ArchitectureConfig] = ArchitectureConfig()
    projected: FastGANConfig = FastGANConfig(width=4, learning_rate=1e-3, ema_kimg=1.0)
    heads: FeatureHeadsConfig = FeatureHeadsConfig(head_width=32, mixing_width=16)


PRESETS = {
    "digits": Config(
        train=TrainConfig(steps=4800, save_every=2400, sample_every=0),
        gan=GANConfig(ema_kimg=5.0),
        style=StyleConfig(r1_every=16),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        style=StyleConfig(r1_every=16),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        style=StyleConfig(r1_every=16),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=781_250, save_every=10_000, sample_every=10_000, log_every=100),
        diffusion=DiffusionGANConfig(),
        gan=GANConfig(512, 16384, 512, ema_kimg=500.0),
        style=StyleConfig(512, 2, r1_gamma=0.01, r1_every=16, mixing=0.0),
        architecture=ArchitectureConfig(discriminator="orig", group=32),
    ),
    "cifar10_projected": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=781_250, save_every=10_000, sample_every=10_000, log_every=100),
        diffusion=DiffusionGANConfig("projected", diffusion_target=0.45),
        projected=FastGANConfig("fastgan", 128, 256, ema_kimg=20.0),
        heads=FeatureHeadsConfig(feature_size=224),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.diffusion_gan import diffused_projected_stage, diffused_stylegan2_stage

    c = resolved(config)
    if c.diffusion.base == "projected":
        return Experiment([diffused_projected_stage(c.diffusion, c.projected, c.heads, c.data, c.train, c.sampling)])
    own = (c.gan, c.augmentation, c.style, c.architecture, c.data, c.train, c.sampling)
    return Experiment([diffused_stylegan2_stage(c.diffusion, *own)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
