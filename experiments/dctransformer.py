"""DCTransformer: images as sparse sequences of quantised DCT coefficients (Nash et al. 2021, arXiv:2103.03841).

    python -m experiments.dctransformer                            # digits, 8x8: at most 4 minutes on 2 CPU cores
    python -m experiments.dctransformer --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.dctransformer --preset emoji64           # 64x64 in colour, for accelerators
    python -m experiments.dctransformer --preset ffhq256 --data.name folder:FFHQ      # the paper's, for accelerators
    python -m experiments.dctransformer --conditional
    python -m experiments.dctransformer sample --picture upsampled --frequencies 3
    python -m experiments.dctransformer sample --picture inpainted

Target of the ffhq256 preset: FID 13.06 (the table of FFHQ); its chunks, blocks and batch are the paper's, its depth, width and
steps jgen's own. Likelihoods are of the coefficients that JPEG's quantisation leaves, at a quality: exact, but not comparable
with bits/dim of the 8-bit values, since the quantisation loses some of them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig, paper_steps
from jgen.config.autoregressive import DCTransformerConfig, DCTSampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1200, log_every=10, save_every=600, sample_every=600)
    mesh: MeshConfig = MeshConfig()
    sampling: DCTSampling = DCTSampling()
    network: Flat[DCTransformerConfig] = DCTransformerConfig(
        75, 4, chunk=40, overlap=8, width=64, heads=4, encoder_layers=1, channel_layers=1, position_layers=1, value_layers=2
    )
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(2e-3, final_learning_rate=0.02, ema=0.998)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=1800, log_every=10, save_every=500, sample_every=900),
        network=DCTransformerConfig(
            75,
            4,
            chunk=128,
            overlap=32,
            width=96,
            heads=4,
            encoder_layers=2,
            channel_layers=2,
            position_layers=1,
            value_layers=2,
        ),
        optimizer=OptimizerConfig(1e-3, final_learning_rate=0.02, ema=0.998),
    ),
    "emoji64": Config(
        data=DataConfig("emoji", batch_size=128, resolution=64, channels=3),
        train=paper_steps(100_000),
        network=DCTransformerConfig(75, 8, chunk=512, overlap=128, length=3000, width=384, heads=6),
        optimizer=OptimizerConfig(5e-4, warmup=2000, final_learning_rate=0.02, ema=0.9995),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=512, resolution=256, resize="box", flip=True),
        train=paper_steps(200_000),
        network=DCTransformerConfig(
            50,
            8,
            chunk=896,
            overlap=128,
            length=8960,
            patch=2,
            width=1024,
            heads=16,
            encoder_layers=12,
            channel_layers=8,
            position_layers=4,
            value_layers=8,
        ),
        optimizer=OptimizerConfig(5e-4, warmup=5000, final_learning_rate=0.0, ema=0.9999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoregressive import dctransformer
    from jgen.recipes.common import Experiment, resolved

    config = resolved(config)
    stage = dctransformer.stage(config.network, config.optimizer, config.data, config.train, config.sampling)
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
