"""CS-GAN: latents moved by gradient descent within each update (Wu et al. 2019, "Deep Compressed Sensing", arXiv:1905.06723).

    python -m experiments.csgan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.csgan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.csgan --network sn_dcgan --width 16      # the players that its authors train, narrow
    python -m experiments.csgan --preset cifar10           # the published settings, for accelerators
    python -m experiments.csgan sample --move               # as the authors sample: the latents move first

Target of the cifar10 preset: none is stated. Its settings are those of the authors' code, which scores 10,000 images of moved
latents. D there has two logits and a cross-entropy, which is the loss of their difference, one logit here; and running
statistics move by 0.001 a step there, by 0.1 here. The presets for CPUs have BigGAN's ResNets.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, LatentMoveConfig, MovedSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=800, save_every=400, sample_every=400)
    mesh: MeshConfig = MeshConfig()
    sampling: MovedSampling = MovedSampling()
    gan: Flat[BigGANConfig] = BigGANConfig(conditional=False, attention=())
    move: Flat[LatentMoveConfig] = LatentMoveConfig()


PRESETS = {
    "digits": Config(train=TrainConfig(steps=1800, save_every=600, sample_every=600)),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, attention=(), conditional=False),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64),
        train=TrainConfig(steps=200_000, save_every=10_000, sample_every=10_000, log_every=100),
        sampling=MovedSampling(move=True),
        gan=BigGANConfig(
            network="sn_dcgan",
            width=64,
            z_dim=128,
            attention=(),
            conditional=False,
            initializer="lecun",
            g_rate=2e-4,
            d_rate=2e-4,
            beta_1=0.5,
            beta_2=0.999,
            ema=0.0,
            ema_start=0,
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.moves import csgan_stage

    c = resolved(config)
    return Experiment([csgan_stage(c.gan, c.move, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
