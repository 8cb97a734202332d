"""The very deep VAE: a latent in every block of a deep decoder (Child 2021, arXiv:2011.10650).

    python -m experiments.vdvae                            # digits, 8x8: at most 4 minutes on 2 CPU cores
    python -m experiments.vdvae --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.vdvae --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.vdvae --preset cifar10           # the paper's run, for accelerators
    python -m experiments.vdvae sample --temperatures 1.0 0.9 0.8
    python -m experiments.vdvae sample --picture depths

Target of the cifar10 preset: at most 2.87 bits/dim on the test set (table 1; four seeds gave 2.842 to 2.898); of imagenet64:
3.52, on the validation images of the ImageNet that van den Oord et al. 2016 made small. Likelihoods are bounds of the
probability of the 8-bit values themselves. skip_threshold leaves out updates with large gradients, which the paper found to
be needed; they are counted, and a run that leaves out all of them stops.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig, paper_steps
from jgen.config.hierarchical import SkippingConfig, VDVAEConfig, VDVAESampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500, max_bad_steps=100)
    mesh: MeshConfig = MeshConfig()
    sampling: VDVAESampling = VDVAESampling()
    network: Flat[VDVAEConfig] = VDVAEConfig()
    skipping: Flat[SkippingConfig] = SkippingConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(4e-3, final_learning_rate=0.02, clip=200.0, ema=0.998)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=2500, log_every=10, save_every=500, sample_every=1000, max_bad_steps=100),
        network=VDVAEConfig("28x1,28d2,14x1,14d2,7x1,7d7,1x1", "1x1,7m1,7x2,14m7,14x2,28m14,28x1", 32, "7:64,1:64"),
        optimizer=OptimizerConfig(2e-3, final_learning_rate=0.02, clip=200.0, ema=0.998),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=3500, log_every=10, save_every=500, sample_every=1000, max_bad_steps=100),
        network=VDVAEConfig("32x1,32d2,16x1,16d2,8x1,8d2,4x1", "4x2,8m4,8x2,16m8,16x2,32m16,32x1", 32, "8:64,4:64"),
        optimizer=OptimizerConfig(2e-3, final_learning_rate=0.02, clip=200.0, ema=0.998),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=32),
        train=replace(paper_steps(1_100_000), max_bad_steps=100),
        network=VDVAEConfig(
            "32x11,32d2,16x6,16d2,8x6,8d2,4x3,4d4,1x3", "1x1,4m1,4x2,8m4,8x5,16m8,16x10,32m16,32x21", 384, "", 16, 0.25,
            mixtures=10,
        ),
        optimizer=OptimizerConfig(2e-4, warmup=100, final_learning_rate=1.0, clip=200.0, ema=0.9999),
    ),
    "imagenet64": Config(
        data=DataConfig("downsampled_imagenet/64x64", batch_size=128, resolution=64),
        train=replace(paper_steps(1_600_000), max_bad_steps=100),
        network=VDVAEConfig(
            "64x11,64d2,32x20,32d2,16x9,16d2,8x8,8d2,4x7,4d4,1x5",
            "1x2,4m1,4x3,8m4,8x7,16m8,16x15,32m16,32x31,64m32,64x12", 512, "", 16, 0.25, mixtures=10,
        ),
        skipping=SkippingConfig(380.0),
        optimizer=OptimizerConfig(1.5e-4, warmup=100, final_learning_rate=1.0, clip=220.0, ema=0.999),
    ),
}  # fmt: skip


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoencoders import vdvae
    from jgen.recipes.common import Experiment, resolved

    config = resolved(config)
    data, train = config.data, config.train
    return Experiment([vdvae.stage(config.network, config.skipping, config.optimizer, data, train, config.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
