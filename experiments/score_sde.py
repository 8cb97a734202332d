"""Score-based models along an SDE: VE, VP and sub-VP (Song et al. 2021, arXiv:2011.13456).

    python -m experiments.score_sde                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.score_sde --sde ve                   # or subvp
    python -m experiments.score_sde --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.score_sde --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.score_sde --preset cifar10           # the paper's run, for accelerators

`evaluate` gives the exact likelihood in bits/dim by the probability-flow ODE, of images with uniform dequantisation. Target of
the cifar10 preset (deep NCSN++, continuous VE): FID 2.20 (table 3; 50,000 samples, the checkpoint of 950,000 steps); of sub-VP
with DDPM++: 2.99 bits/dim (table 2; there ema 0.9999 and the mean over pixels). The corrector's step follows from norms of each
image, where the authors take those of the whole batch, so that an image does not depend on its neighbours.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, LabelConfig, MeshConfig, OptimizerConfig, TrainConfig, UNetConfig, paper_steps
from jgen.config.samplers import PredictorCorrector
from jgen.config.score import SDEConfig, SDESampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: SDESampling = SDESampling()
    sde: Flat[SDEConfig] = SDEConfig()
    network: Flat[UNetConfig] = UNetConfig()
    labels: Flat[LabelConfig] = LabelConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=550),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1100, save_every=220, sample_every=550),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(8,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(950_000),
        sampling=SDESampling(PredictorCorrector(1000), likelihood_tolerance=1e-5),
        sde=SDEConfig(
            "ve",
            "ncsnpp",
            sigma_min=0.02,  # twice the paper's, whose images are in [0, 1]
            sigma_max=100.0,
            reduction="half_sum",
        ),
        network=UNetConfig(128, (1, 2, 2, 2), num_res_blocks=8, dropout=0.1),
        optimizer=OptimizerConfig(2e-4, warmup=5000, final_learning_rate=1.0, ema=0.999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.score.sde import sde_stage

    c = resolved(config)
    return Experiment([sde_stage(c.sde, c.network, c.labels, c.data, c.train, c.optimizer, c.sampling)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
