"""Flow matching on straight paths, or rectified flow (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003).

    python -m experiments.flow_matching                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.flow_matching --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.flow_matching --preset cifar10           # for accelerators

Target of the cifar10 preset: FID 2.58 with RK45 and a tolerance of 1e-5 (rectified flow, table 1, with 50,000 samples; flow
matching reports 6.35 with its smaller network). It is that paper's DDPM++, of 61.8 M parameters. The velocity
network is a denoiser in other words (`jgen.objectives.edm.flow`), so every sampler of the continuous coordinates runs it; euler
with --sampling.grid time is the plain Euler method along the path. The preset digits trains for minutes, and samples by the SDE
that shares the path's marginals rather than along the ODE.
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
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
    UNetConfig,
    paper_steps,
)
from jgen.config.samplers import RK45, DPMSolver, DPMSolverSDE
from jgen.config.unet import NetworkName

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: DiffusionSampling = DiffusionSampling(DPMSolver(25))
    network: Flat[UNetConfig] = UNetConfig()
    labels: Flat[LabelConfig] = LabelConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()
    kind: NetworkName = "unet"
    """ADM's U-Net, or DDPM++ and NCSN++ of Song et al. 2021."""
    logit_normal: bool = True
    """Draw training times logit-normally, more of them in the middle; else uniformly."""


PRESETS = {
    # A short training shows in the deterministic path: noise on the way draws cleaner images (docs/samplers.md).
    "digits": Config(
        train=TrainConfig(steps=1500, save_every=750, sample_every=750),
        sampling=DiffusionSampling(DPMSolverSDE(25)),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(800_000),
        sampling=DiffusionSampling(RK45(tolerance=1e-5), guide=Guidance(clip_denoised=False)),
        kind="ddpmpp",
        network=UNetConfig(channels=128, channel_mult=(1, 2, 2, 2), num_res_blocks=4, dropout=0.15),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup=5000, final_learning_rate=1.0, ema=0.999999),
        logit_normal=False,
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion.continuous import flow_stage

    c = resolved(config)
    return Experiment([flow_stage(c.kind, c.network, c.logit_normal, c.labels, c.data, c.train, c.optimizer, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
