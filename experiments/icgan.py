"""IC-GAN: BigGAN conditioned on instances and their neighbours (Casanova et al. 2021, arXiv:2109.05070).

    python -m experiments.icgan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.icgan --conditional              # with classes too, the paper's class-conditional IC-GAN
    python -m experiments.icgan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.icgan --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.icgan --preset imagenet128       # 128x128, the authors' settings, for accelerators
    python -m experiments.icgan sample --instance 7        # images like the neighbours of one instance

Target of the imagenet128 preset: FID 11.7 and Inception Score 48.7, of instances without classes (with --conditional 9.5 and
108.6), as published for the authors' SwAV features; here EfficientNet-Lite0's stand in for those.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, InstanceConfig, InstanceSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=750, sample_every=750)
    mesh: MeshConfig = MeshConfig()
    sampling: InstanceSampling = InstanceSampling()
    gan: Flat[BigGANConfig] = BigGANConfig(conditional=False)
    instance: Flat[InstanceConfig] = InstanceConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,), conditional=False),
        instance=InstanceConfig(instances=1000),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,), conditional=False, augment="diffaug"),
        instance=InstanceConfig(neighbours=5, instances=1000, feature_dim=64),
    ),
    "imagenet128": Config(
        data=DataConfig("imagenet2012", batch_size=2048, resolution=128, flip=True),
        train=TrainConfig(steps=250_000, save_every=5_000, sample_every=5_000, log_every=100),
        gan=BigGANConfig(
            width=96,
            z_dim=120,
            shared_dim=128,
            attention=(64,),
            conditional=False,
            g_rate=4e-5,
            d_rate=1e-4,
            beta_2=0.999,
            epsilon=1e-6,
            sn_epsilon=1e-6,
            ema=0.9999,
            ema_start=20_000,
            ema_statistics=True,
        ),
        instance=InstanceConfig(neighbours=50, instances=1000, feature_dim=512),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.icgan import icgan_stage

    c = resolved(config)
    return Experiment([icgan_stage(c.gan, c.instance, c.data, c.train, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
