"""BigGAN and BigGAN-deep (Brock et al. 2018, arXiv:1809.11096).

    python -m experiments.biggan                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.biggan --network deep
    python -m experiments.biggan --head twin                # or another head, such as multi_hinge or contrastive
    python -m experiments.biggan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.biggan --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.biggan --preset cifar10           # the published settings, for accelerators
    python -m experiments.biggan --preset imagenet128       # 128x128, the author's run
    python -m experiments.biggan sample --truncation 0.5 --statistics standing

Target of the cifar10 preset: FID 14.73 and Inception Score 9.22 (the paper's appendix C.2; FID 4.16 in StudioGAN's benchmark).
Target of imagenet128: FID 7.4, Inception Score 166.5 (the paper's abstract). Both presets are those of the author's PyTorch
scripts, which state no score for CIFAR-10; the G of that one has no chunks of z, and in every norm embeddings of its own.
Samples take the average of the running statistics, where that script takes those of each batch of samples; and batch norms
are over the whole batch, where the scripts' are over each GPU's part of it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.biggan import BIGGAN_CIFAR10, BigGANConfig, TruncatedSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=750, sample_every=750)
    mesh: MeshConfig = MeshConfig()
    sampling: TruncatedSampling = TruncatedSampling()
    gan: Flat[BigGANConfig] = BigGANConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,)),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2500, save_every=1250, sample_every=1250, log_every=10),
        gan=BigGANConfig(width=4, z_dim=64, shared_dim=32, attention=(16,), augment="diffaug"),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=50),
        train=TrainConfig(steps=500_000, save_every=10_000, sample_every=10_000, log_every=100),
        gan=BIGGAN_CIFAR10,
    ),
    "imagenet128": Config(
        data=DataConfig("imagenet2012", batch_size=2048, resolution=128),
        train=TrainConfig(steps=150_000, accumulate=8, save_every=5_000, sample_every=5_000, log_every=100),
        gan=BigGANConfig(
            width=96,
            z_dim=120,
            shared_dim=128,
            attention=(64,),
            g_rate=1e-4,
            d_rate=4e-4,
            beta_2=0.999,
            epsilon=1e-6,
            sn_epsilon=1e-6,
            ema=0.9999,
            ema_start=20_000,
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
