"""NCSN: noise conditional score networks and annealed Langevin dynamics (Song & Ermon 2019, arXiv:1907.05600; 2020).

    python -m experiments.ncsn                            # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.ncsn --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ncsn --preset emoji32           # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.ncsn --preset cifar10           # NCSNv2's run, for accelerators

Target of the cifar10 preset: FID 10.87 with the last denoising step (NCSNv2, arXiv:2006.09011, table 1); its authors
trained 300,000 steps. Images are taken as [0, 1] inside, so levels and step sizes read as in the papers.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig, paper_steps
from jgen.config.samplers import AnnealedLangevin
from jgen.config.score import NCSNConfig, NCSNSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=700, save_every=350, sample_every=350)
    mesh: MeshConfig = MeshConfig()
    sampling: NCSNSampling = NCSNSampling()
    network: Flat[NCSNConfig] = NCSNConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(learning_rate=1e-3, warmup=50, ema=0.99)


PRESETS = {
    "digits": Config(train=TrainConfig(steps=1400, save_every=700, sample_every=700)),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, save_every=250, sample_every=500),
        sampling=NCSNSampling(AnnealedLangevin(steps_each=5)),
        network=NCSNConfig(levels=40, sigma_max=15.0, sigma_min=0.01),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50, ema=0.995),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1000, save_every=250, sample_every=500),
        sampling=NCSNSampling(AnnealedLangevin(steps_each=5)),
        network=NCSNConfig(levels=60, sigma_max=20.0, sigma_min=0.01),
        optimizer=OptimizerConfig(learning_rate=1e-3, warmup=50, ema=0.995),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(300_000),
        sampling=NCSNSampling(AnnealedLangevin(steps_each=5, step_size=6.2e-6)),
        network=NCSNConfig(channels=128, levels=232, sigma_max=50.0, sigma_min=0.01),
        optimizer=OptimizerConfig(1e-4, warmup=1, final_learning_rate=1.0, clip=0.0, ema=0.999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.score.ncsn import ncsn_stage

    c = resolved(config)
    return Experiment([ncsn_stage(c.network, c.data, c.train, c.optimizer, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
