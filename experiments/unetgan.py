"""U-Net GAN: a discriminator that judges every pixel, with CutMix (Schönfeld et al. 2020, arXiv:2002.12655).

    python -m experiments.unetgan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.unetgan --cutmix 0                # without mixed images
    python -m experiments.unetgan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.unetgan --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.unetgan --preset ffhq256           # the published settings, for accelerators

Target of the ffhq256 preset, with --data.name folder:FFHQ: FID 7.48 (the paper's table of FFHQ; BigGAN has 11.48). The settings
are those of the authors' script for FFHQ; it names no number of steps, which is jgen's.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, CutMixConfig, TruncatedSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=750, sample_every=750)
    mesh: MeshConfig = MeshConfig()
    sampling: TruncatedSampling = TruncatedSampling()
    gan: Flat[BigGANConfig] = BigGANConfig()
    cutmix: Flat[CutMixConfig] = CutMixConfig()


PRESETS = {
    "digits": Config(cutmix=CutMixConfig(0.1)),  # with 0.5 each class comes to one image of 8x8 pixels
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,)),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,)),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=20, resolution=256, flip=True),
        train=TrainConfig(steps=800_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=BigGANConfig(
            width=64,
            z_dim=126,  # the authors round 128 down to whole chunks
            attention=(),
            conditional=False,
            g_rate=1e-4,
            d_rate=5e-4,
            beta_2=0.999,
            epsilon=1e-6,
            sn_epsilon=1e-6,
            ema=0.9999,
            ema_start=21_000,
            ema_statistics=True,
        ),
        cutmix=CutMixConfig(cutmix_warmup=70_000),  # 20 epochs
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.mixed import unetgan_stage

    c = resolved(config)
    return Experiment([unetgan_stage(c.gan, c.cutmix, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
