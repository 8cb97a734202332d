"""PixelCNN, Gated PixelCNN and PixelCNN++ (arXiv:1601.06759, arXiv:1606.05328, arXiv:1701.05517).

    python -m experiments.pixelcnn                           # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.pixelcnn --preset fashion_mnist    # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.pixelcnn --preset emoji32          # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.pixelcnn --preset cifar10          # PixelCNN++'s run, for accelerators
    python -m experiments.pixelcnn --conditional             # class-conditional

Target of the cifar10 preset: 2.92 bits/dim on the test set (PixelCNN++, table 1), after 5 days on 8 Titan X. Likelihoods
are of the 8-bit values themselves (discrete), exact, in bits per dimension.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig
from jgen.config.autoregressive import PixelCNNConfig, PixelSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=500, sample_every=500)
    mesh: MeshConfig = MeshConfig()
    sampling: PixelSampling = PixelSampling()
    network: Flat[PixelCNNConfig] = PixelCNNConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(3e-3, final_learning_rate=0.02)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=3000, log_every=10, save_every=500, sample_every=1000),
        network=PixelCNNConfig(output="mixture", channels=32, layers=6),
        optimizer=OptimizerConfig(2e-3, final_learning_rate=0.02, ema=0.998),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=3000, log_every=10, save_every=500, sample_every=1000),
        network=PixelCNNConfig(output="mixture", channels=32, layers=6),
        optimizer=OptimizerConfig(2e-3, final_learning_rate=0.02, ema=0.998),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128),
        train=TrainConfig(steps=1_200_000, log_every=100, save_every=10_000, sample_every=50_000),
        network=PixelCNNConfig("pixelcnnpp", output="mixture", channels=160, layers=5, dropout=0.5),
        optimizer=OptimizerConfig(
            1e-3,
            warmup=0,
            final_learning_rate=0.0024788,  # 0.999995 a step
            decay="exponential",
            beta_1=0.95,
            beta_2=0.9995,
            clip=0.0,
            ema=0.9995,
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoregressive import pixelcnn
    from jgen.recipes.common import Experiment, resolved

    config = resolved(config)
    return Experiment([pixelcnn.stage(config.network, config.optimizer, config.data, config.train, config.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
