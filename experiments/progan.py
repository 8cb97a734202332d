"""ProGAN: progressive growing of GANs (Karras et al. 2018, arXiv:1710.10196), with WGAN-GP.

    python -m experiments.progan                            # digits, 4x4 and 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.progan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.progan --preset cifar10           # for accelerators

Every resolution is a stage in which its level fades in, both networks' and the reals'. Target of the cifar10 preset: Inception
Score 8.80, the best of the authors' runs, whose mean is 8.56 (paper, table 3; 50,000 samples, unconditional). At the beginning
of a stage the authors start Adam from zero, and so does jgen.
"""

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import jgen
from jgen.config import AugmentConfig, DataConfig, Flat, GANConfig, GrowthConfig, LabelSampling, MeshConfig, TrainConfig
from jgen.config.gan import CriticConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=3000, save_every=1500, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: LabelSampling = LabelSampling()
    gan: Flat[GANConfig] = GANConfig(learning_rate=2e-3)
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    growth: Flat[GrowthConfig] = GrowthConfig()
    critic: Flat[CriticConfig] = CriticConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=1000, save_every=1000, sample_every=1000, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, learning_rate=2e-3, ema_kimg=5.0),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=16),
        train=TrainConfig(steps=50_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=GANConfig(
            128,
            8192,
            128,
            learning_rate=1e-3,
            ema_kimg=11.0847,
            ema_rampup=0.0,  # the authors' decay of 0.999 a step
        ),
        growth=GrowthConfig(25_000, 1_125_000, fade_images=400_000),  # 20 million images in all
        critic=CriticConfig(slope=750.0, group=0),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan import StyleRecipe, critic_updates, growing_stages, progan_networks

    c = resolved(config)
    networks, updates_at = progan_networks(c.gan, c.critic, c.data, c.train.dtype), partial(critic_updates, c.critic)
    updates = updates_at(c.gan.learning_rate)
    recipe = StyleRecipe(networks, c.gan, c.augmentation, c.data, c.sampling, updates, styles=False)
    return Experiment(growing_stages(recipe, c.growth, c.train, updates_at))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
