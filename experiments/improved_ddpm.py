"""Improved DDPM: learned variances and the variational bound (Nichol & Dhariwal 2021, arXiv:2102.09672).

    python -m experiments.improved_ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --objective vlb            # the bound itself, times drawn by the size of their losses
    python -m experiments.improved_ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --preset cifar10           # the paper's run, for accelerators

Target of the cifar10 preset: FID 3.19 and 3.17 bits/dim with the hybrid loss along the cosine chain (paper, table 2; 2.94
bits/dim with the bound itself). `evaluate` gives the bound of held-out images in bits/dim (discrete, 8-bit values), and its
parts. The preset digits trains for minutes, and predicts v, where the paper predicts the noise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jgen
from jgen.config import (
    Bound,
    ChainConfig,
    DataConfig,
    DiffusionSampling,
    Flat,
    Inline,
    LabelConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
    UNetConfig,
    paper_steps,
)
from jgen.config.samplers import DDPM, Solver

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Sampling(DiffusionSampling):
    solver: Inline[Solver] = DDPM()
    bound: Inline[Bound] = Bound(0)


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    network: Flat[UNetConfig] = UNetConfig()
    labels: Flat[LabelConfig] = LabelConfig()
    chain: Flat[ChainConfig] = ChainConfig("cosine")
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()
    objective: Literal["hybrid", "vlb"] = "hybrid"
    """hybrid: the simple loss, and 0.001 of the bound for the variance; vlb: the bound itself."""


PRESETS = {
    # In a short training errors of v stay smaller than those of the noise (docs/samplers.md).
    "digits": Config(
        train=TrainConfig(steps=1500, save_every=750, sample_every=750),
        chain=ChainConfig("cosine", prediction="v"),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128),
        train=paper_steps(500_000),
        sampling=Sampling(DDPM(4000)),
        network=UNetConfig(
            channels=128,
            channel_mult=(1, 2, 2, 2),
            num_res_blocks=3,
            attention=(2, 4),
            scale_shift_norm=True,
            dropout=0.3,
        ),
        chain=ChainConfig("cosine", diffusion_steps=4000, rescale_timesteps=True),
        optimizer=OptimizerConfig(learning_rate=1e-4, warmup=0, final_learning_rate=1.0, clip=0.0, ema=0.9999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion.chain import improved_stage

    c = resolved(config)
    own = (c.sampling, c.sampling.bound, c.objective == "vlb")
    return Experiment([improved_stage(c.network, c.chain, c.labels, c.data, c.train, c.optimizer, *own)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
