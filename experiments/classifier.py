"""Classifier: the feature networks of jgen's own scores, and with --noisy the classifier of classifier guidance.

    python -m experiments.classifier                           # digits, 8x8: a minute on 2 CPU cores
    python -m experiments.classifier --preset fashion_mnist    # 28x28: at most 10 minutes on 2 CPU cores
    python -m experiments.classifier --preset glyphs           # the 62 letters and numerals, 32x32, in colour

A small residual network (He et al. 2015, arXiv:1512.03385). Target of the fashion_mnist preset: 92 % of the test set.
`python -m experiments.classifier evaluate` gives the accuracy, `python -m jgen.metrics export RUN` makes the weight
file of a feature network. --noisy trains on images at every noise level of DDPM's linear chain, and gives the network
the time (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.1): such a run guides any diffusion model of as large images, by
`sample --classifier RUN --classifier-scale 2`. --network adm is the paper's own, the descending half of its U-Net.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import ChainConfig, DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig
from jgen.config.classifier import ClassifierConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, save_every=500, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    network: Flat[ClassifierConfig] = ClassifierConfig()
    chain: Flat[ChainConfig] = ChainConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(3e-3, warmup=200, final_learning_rate=0.0, ema=0.998)


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=128, flip=True),
        train=TrainConfig(steps=4400, log_every=10, save_every=1100, sample_every=0),
        network=ClassifierConfig(channels=(32, 64, 96), stride=2, shift=1, dropout=0.2, smoothing=0.05, weight_decay=0.05),
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=128, resolution=32, channels=3),
        train=TrainConfig(steps=1600, log_every=10, save_every=400, sample_every=0),
        network=ClassifierConfig(channels=(32, 64, 96), stride=2),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2000, log_every=10, save_every=500, sample_every=0),
        network=ClassifierConfig(channels=(32, 64, 96), stride=2, shift=2, weight_decay=0.05),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes import classifier
    from jgen.recipes.common import Experiment, resolved

    c = resolved(config)
    return Experiment([classifier.stage(c.network, c.chain, c.optimizer, c.data, c.train)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
