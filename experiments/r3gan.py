"""R3GAN (Huang et al. 2024, "The GAN is dead; long live the GAN!", arXiv:2501.05441): relativistic pairing with R1 and R2.

    python -m experiments.r3gan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.r3gan --conditional
    python -m experiments.r3gan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.r3gan --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.r3gan --preset cifar10           # the authors' settings, for accelerators

Target of the cifar10 preset: FID 1.96, class-conditional (the paper's table of CIFAR-10).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, LabelSampling, MeshConfig, TrainConfig
from jgen.config.biggan import R3GANConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=2500, save_every=1250, sample_every=1250)
    mesh: MeshConfig = MeshConfig()
    sampling: LabelSampling = LabelSampling()
    gan: Flat[R3GANConfig] = R3GANConfig()


PRESETS = {
    "digits": Config(
        train=TrainConfig(steps=3000, save_every=1500, sample_every=1500),
        gan=R3GANConfig(width=32, gammas=(0.2, 0.05)),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=R3GANConfig(width=16, conditional=True, ema_kimg=(0.0, 10.0)),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=R3GANConfig(width=16, conditional=True, ema_kimg=(0.0, 10.0)),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=512, flip=True),
        train=TrainConfig(steps=390_625, save_every=10_000, sample_every=10_000, log_every=100),
        gan=R3GANConfig(
            width=768,
            group_size=16,
            blocks=2,
            z_dim=64,
            embedding=768,
            conditional=True,
            rates=(2e-4, 5e-5),
            gammas=(0.05, 0.005),
            ema_kimg=(0.0, 5000.0),
            augment_p=(0.0, 0.55),
            anneal_kimg=20_000.0,
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.r3gan import r3gan_stage

    c = resolved(config)
    return Experiment([r3gan_stage(c.gan, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
