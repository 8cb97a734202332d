"""SAGAN: self-attention in both players (Zhang et al. 2018, arXiv:1805.08318), spectral norm and two learning rates.

    python -m experiments.sagan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.sagan --attention                 # without attention
    python -m experiments.sagan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.sagan --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.sagan --preset imagenet128           # the published settings, for accelerators

Target of the imagenet128 preset: FID 18.65, Inception Score 52.52 (the paper's abstract). The settings are those of the script
in BigGAN's repository (ajbrock/BigGAN-PyTorch), which averages G and has 0.999 for Adam's second moments, where the paper has
0.9.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, TruncatedSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=750, sample_every=750)
    mesh: MeshConfig = MeshConfig()
    sampling: TruncatedSampling = TruncatedSampling()
    gan: Flat[BigGANConfig] = BigGANConfig(hierarchical=False, initializer="xavier")


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, attention=(16,), hierarchical=False, initializer="xavier"),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, attention=(16,), hierarchical=False, initializer="xavier", augment="diffaug"),
    ),
    "imagenet128": Config(
        data=DataConfig("imagenet2012", batch_size=256, resolution=128),
        train=TrainConfig(steps=1_000_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=BigGANConfig(
            width=64,
            z_dim=128,
            attention=(64,),
            hierarchical=False,
            shared=True,
            shared_dim=128,
            initializer="xavier",
            g_rate=1e-4,
            d_rate=4e-4,
            beta_2=0.999,
            sn_epsilon=1e-8,
            ema=0.9999,
            ema_start=2000,
            ema_statistics=True,
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.biggan import biggan_stage

    c = resolved(config)
    return Experiment([biggan_stage(c.gan, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
