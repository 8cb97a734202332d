"""Cascaded diffusion (Ho et al. 2021, arXiv:2106.15282): a small image, then super-resolution, stage by stage.

    python -m experiments.cascade                            # digits, 4 -> 8: under 3 minutes on 2 CPU cores
    python -m experiments.cascade --preset glyphs            # 8 -> 16 -> 32: an hour or so on 2 CPU cores
    python -m experiments.cascade --preset fashion_mnist     # 7 -> 14 -> 28: at most 30 minutes on 2 CPU cores
    python -m experiments.cascade --preset imagenet256       # the paper's run, for accelerators
    python -m experiments.cascade --stages.0.steps 1200 --stages.1.channels 16
    python -m experiments.cascade sample --augment 0.1 --samplers ddpm heun --steps-each 100 18

The super-resolution stages are trained on small images with noise (and now and then a blur) put on them, and are
conditioned on its amount, so that they forgive the faults of the stage before; the amount when sampling is --augment.
--picture inpainted keeps the known part of held-out images at every stage; --picture edited brings the smallest image to the
noise level --edit-from, and the later stages follow from the result.

Target of the imagenet256 preset: FID 4.88 (paper, table 1). Networks, objectives, chains and training are those of the paper's
hyperparameters for the cascade 32 -> 64 -> 256, stage by stage; the noise on the 32-pixel image is 0.31, as much as step 751 of
its chain has, one of the best the paper found. Two things differ: the last stage is conditioned on a step of its chain, the
paper's on the noise itself; and that chain is a cosine, of which 100 steps are taken (the paper tunes it after training). There
is no official code: the dropout of 0.1 of the stage of 64 pixels, and the bound's weight in the hybrid loss, which is that of
improved DDPM, are not verified.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import (
    ChainConfig,
    DataConfig,
    Flat,
    LabelConfig,
    MeshConfig,
    OptimizerConfig,
    TrainConfig,
    paper_steps,
)
from jgen.config.cascade import CascadeConfig, CascadeNetwork, CascadeSampling, StageConfig
from jgen.config.samplers import DDPM

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=400, save_every=200, sample_every=200)
    mesh: MeshConfig = MeshConfig()
    sampling: CascadeSampling = CascadeSampling()
    cascade: Flat[CascadeConfig] = CascadeConfig()
    network: Flat[CascadeNetwork] = CascadeNetwork()
    labels: Flat[LabelConfig] = LabelConfig()
    chain: Flat[ChainConfig] = ChainConfig("cosine", prediction="v")
    """In so short a training a network that predicts the noise sends some images off into specks; one of v does not."""
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()
    stages: tuple[StageConfig, ...] = (StageConfig(),) * 3
    """Per-stage overrides, smallest images first; extra entries without settings are ignored."""


PRESETS = {
    "digits": Config(),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1000, save_every=500, sample_every=500),
        cascade=CascadeConfig((8, 16, 32)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
        stages=(StageConfig(steps=6000), StageConfig(), StageConfig()),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1200, save_every=200, sample_every=400),
        cascade=CascadeConfig((7, 14, 28)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=2048, resolution=256, resize="adm", flip=True),
        train=paper_steps(400_000),
        sampling=CascadeSampling(DDPM(25, variance="learned_range"), steps_each=(4000, 4000, 100), augment=0.31),
        cascade=CascadeConfig((32, 64, 256), "hybrid", most_augment=1.0, blur=0.0),
        network=CascadeNetwork(256, (1, 2, 3, 4), dropout=0.1, attention=(8, 16), num_heads=4),
        labels=LabelConfig(conditional=True),
        chain=ChainConfig("cosine", 4000),
        optimizer=OptimizerConfig(1e-4, warmup=10_000, final_learning_rate=1.0, ema=0.9999),
        stages=(
            StageConfig(num_res_blocks=6, steps=700_000),
            StageConfig(num_res_blocks=5),
            StageConfig(500_000, 1024, 128, (1, 2, 4, 4, 8, 8), 3, (16,), 1, 0.0, "simple", 2000, most_augment=0.0, blur=0.5),
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion.cascade import cascade_stages

    c = resolved(config)
    trained = (c.data, c.train, c.optimizer, c.sampling)
    return Experiment(cascade_stages(c.cascade, c.stages, c.network, c.chain, c.labels, *trained))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
