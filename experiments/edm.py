"""EDM: the design space of diffusion models (Karras et al. 2022, arXiv:2206.00364).

    python -m experiments.edm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.edm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.edm --preset cifar10           # the paper's network and steps, for accelerators

Target of the cifar10 preset: FID 1.97 unconditional, 1.79 conditional (paper, table 2), with 35 network calls. The paper
trained 200 million images with a 55.7 M parameter DDPM++: about two days on 8 V100. Their augmentation, with its
labels as a condition, is --augment 0.12, which the preset has; --augment 0 ends its mirroring too. The preset digits trains for
minutes: it samples with noise on the way, by dpm_sde rather than the paper's Heun steps, and has the digits' own sigma_data.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import (
    DataConfig,
    DiffusionSampling,
    Flat,
    Guidance,
    LabelConfig,
    LevelsConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
)
from jgen.config.edm import EDMConfig
from jgen.config.samplers import DPMSolverSDE, Heun

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: DiffusionSampling = DiffusionSampling(Heun())
    network: Flat[LevelsConfig] = LevelsConfig()
    edm: Flat[EDMConfig] = EDMConfig()
    labels: Flat[LabelConfig] = LabelConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()


PRESETS = {
    # A short training shows in the deterministic path: noise on the way draws cleaner images (docs/samplers.md).
    "digits": Config(
        train=TrainConfig(steps=1400, save_every=700, sample_every=700),
        sampling=DiffusionSampling(DPMSolverSDE(25)),
        edm=EDMConfig(sigma_data=0.75),  # measured
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        network=LevelsConfig(channel_mult=(1, 2, 2)),
        edm=EDMConfig(attention=(7,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        network=LevelsConfig(channel_mult=(1, 2, 2)),
        edm=EDMConfig(attention=(8,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=512),
        train=TrainConfig(
            steps=390_625,
            matmul_precision="float32",  # the authors turn TF32 off
            log_every=100,
            save_every=5_000,
            sample_every=10_000,
        ),
        sampling=DiffusionSampling(Heun(), guide=Guidance(clip_denoised=False)),
        network=LevelsConfig(channels=128, channel_mult=(2, 2, 2), num_res_blocks=4, dropout=0.13),
        edm=EDMConfig(attention=(16,), augment=0.12),
        optimizer=OptimizerConfig(
            learning_rate=1e-3,
            warmup=19_531,
            final_learning_rate=1.0,
            clip=0.0,
            ema=0.99929,  # half-life of 500,000 images
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion.continuous import edm_stage

    c = resolved(config)
    return Experiment([edm_stage(c.network, c.edm, c.labels, c.data, c.train, c.optimizer, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
