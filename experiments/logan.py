"""LOGAN: latents moved by a natural-gradient step before each update (Wu et al. 2019, arXiv:1912.00953), on BigGAN's players.

    python -m experiments.logan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.logan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.logan --preset imagenet128           # the published settings, for accelerators
    python -m experiments.logan sample --move               # moves the latents in sampling too

Target of the imagenet128 preset: FID 3.4, Inception Score 148 (the paper's abstract). Its players are the paper's, BigGAN-deep
with latents of 256 numbers and leaky ReLUs. There is no official code. The rates and the two steps of D are those of
BigGAN-deep at 128 pixels (Brock et al. 2018, appendix C). The weight of a move's cost is the paper's 300, as others quote it;
it and the rates are not verified, and the number of steps is jgen's. The presets for CPUs have StudioGAN's weight, 0.1.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, MovedSampling, NaturalMoveConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, save_every=500, sample_every=500)
    mesh: MeshConfig = MeshConfig()
    sampling: MovedSampling = MovedSampling()
    gan: Flat[BigGANConfig] = BigGANConfig()
    move: Flat[NaturalMoveConfig] = NaturalMoveConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,)),
    ),
    "imagenet128": Config(
        data=DataConfig("imagenet2012", batch_size=2048, resolution=128),
        train=TrainConfig(steps=1_200_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=BigGANConfig(
            network="deep",
            width=128,
            z_dim=256,
            shared_dim=128,
            slope=0.2,
            attention=(64,),
            d_steps=2,
            g_rate=5e-5,
            d_rate=2e-4,
            beta_2=0.999,
            ema=0.9999,
            ema_start=0,
        ),
        move=NaturalMoveConfig(cost_weight=300.0),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.moves import logan_stage

    c = resolved(config)
    return Experiment([logan_stage(c.gan, c.move, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
