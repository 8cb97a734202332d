"""TarFlow: causal transformers as a normalising flow (Zhai et al. 2024, arXiv:2412.06329).

    python -m experiments.tarflow                            # digits, 8x8: at most 4 minutes on 2 CPU cores
    python -m experiments.tarflow --noise 0                  # for likelihoods: uniform noise
    python -m experiments.tarflow --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.tarflow --preset imagenet64        # the paper's likelihoods, for accelerators
    python -m experiments.tarflow --conditional
    python -m experiments.tarflow sample --guidance 2

Target of the imagenet64 preset: 2.99 bits/dim (table 2), on the validation images of the ImageNet that van den Oord et al. 2016
made small; those of imagenet_resized are smoother, and their bits/dim lower. The settings are those of the authors' README for
density modelling: 100 epochs in float32. Likelihoods are exact densities of 8-bit values with uniform noise; a model of images
with Gaussian noise (noise above 0) has worse ones and better pictures.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import AdamWConfig, DataConfig, Flat, MeshConfig, TrainConfig, paper_steps
from jgen.config.flow import TarFlowConfig, TarFlowSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=2000, log_every=10, save_every=500, sample_every=1000)
    mesh: MeshConfig = MeshConfig()
    sampling: TarFlowSampling = TarFlowSampling()
    network: Flat[TarFlowConfig] = TarFlowConfig()
    optimizer: Flat[AdamWConfig] = AdamWConfig(1e-3, final_learning_rate=0.02, ema=0.998)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=7000, log_every=10, save_every=500, sample_every=1000),
        network=TarFlowConfig(patch=4, width=96, blocks=4, layers=2, heads=4),
        optimizer=AdamWConfig(1e-3, final_learning_rate=0.02, ema=0.998),
    ),
    "imagenet64": Config(
        data=DataConfig("downsampled_imagenet/64x64", batch_size=256, resolution=64, flip=True),
        train=paper_steps(500_400),
        network=TarFlowConfig(patch=2, width=768, blocks=8, layers=8, heads=12, noise=0.0),
        optimizer=AdamWConfig(1e-4, warmup=5004, final_learning_rate=0.01, beta_2=0.95, clip=0.0, ema=0.0, weight_decay=1e-4),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.flow import tarflow

    config = resolved(config)
    return Experiment([tarflow.stage(config.network, config.optimizer, config.data, config.train, config.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
