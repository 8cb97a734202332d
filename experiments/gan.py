"""GANs: Goodfellow et al. 2014 (arXiv:1406.2661) and the losses, penalties and conditions that followed.

    python -m experiments.gan                                               # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.gan --loss wasserstein --penalty gp --critic-steps 5 --train.steps 4000       # WGAN-GP
    python -m experiments.gan --loss wasserstein --penalty clip --critic-steps 5                        # WGAN
    python -m experiments.gan --conditioning projection
    python -m experiments.gan --augment diffaug --consistency 1             # for few images: --data.limit 200
    python -m experiments.gan --augment diffusion --adapt-kimg 20           # Diffusion-GAN's; or ada
    python -m experiments.gan --preset fashion_mnist                        # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.gan --preset cifar10                              # WGAN-GP's ResNet, for accelerators

Target of the cifar10 preset: Inception Score 7.86, unconditional (WGAN-GP, table 3; 50,000 samples, 100,000 generator steps of
5 critic steps each).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, LabelSampling, MeshConfig, TrainConfig
from jgen.config.gan import ConvGANConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=2500, save_every=1250, sample_every=1250)
    mesh: MeshConfig = MeshConfig()
    sampling: LabelSampling = LabelSampling()
    gan: Flat[ConvGANConfig] = ConvGANConfig()


PRESETS = {
    "digits": Config(
        train=TrainConfig(steps=5000, save_every=2500, sample_every=2500),
        gan=ConvGANConfig(ema=0.995),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=3000, save_every=1500, sample_every=1500, log_every=10),
        gan=ConvGANConfig(width=16, learning_rate=5e-4, ema=0.998),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=3000, save_every=1500, sample_every=1500, log_every=10),
        gan=ConvGANConfig(width=16, learning_rate=5e-4, ema=0.998),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, dequantize=True),
        train=TrainConfig(steps=500_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=ConvGANConfig(
            network="resnet",
            width=128,
            z_dim=128,
            loss="wasserstein",
            penalty="gp",
            penalty_weight=10.0,
            critic_steps=5,
            generator_batches=2,
            learning_rate=2e-4,
            final_learning_rate=0.0,
            beta_2=0.9,
            ema=0.0,
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.convolutional import gan_stage

    c = resolved(config)
    return Experiment([gan_stage(c.gan, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
