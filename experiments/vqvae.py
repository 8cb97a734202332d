"""VQ-VAE and VQ-VAE-2, and the PixelCNN prior over their codes (arXiv:1711.00937, arXiv:1906.00446).

    python -m experiments.vqvae                              # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.vqvae --conditional                # a class-conditional prior
    python -m experiments.vqvae --preset fashion_mnist       # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.vqvae --preset emoji32             # 32x32 in colour: at most 45 minutes on 2 CPU cores
    python -m experiments.vqvae --preset cifar10             # the first paper's network, for accelerators

Two stages, one command: the autoencoder, then gated PixelCNNs over the codes it makes, coarse to fine; samples are codes
of the priors, decoded. Target of the cifar10 preset, the network of van den Oord et al. 2017 (8x8 codes): none, since their
4.67 bits/dim are of another likelihood, and VQ-VAE-2 does not report CIFAR-10.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, TrainConfig
from jgen.config.autoencoder import CodePriorConfig, CodeSampling, VQVAEConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500)
    """Training of the autoencoder; that of the prior differs in its steps."""
    mesh: MeshConfig = MeshConfig()
    sampling: CodeSampling = CodeSampling()
    network: Flat[VQVAEConfig] = VQVAEConfig()
    prior: Flat[CodePriorConfig] = CodePriorConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=3000, log_every=10, save_every=1000, sample_every=1000),
        network=VQVAEConfig(stride=4, codes=256, learning_rate=1e-3),
        prior=CodePriorConfig(prior_steps=6000),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=3000, log_every=10, save_every=1000, sample_every=1000),
        network=VQVAEConfig(stride=4, codes=256, learning_rate=1e-3),
        prior=CodePriorConfig(prior_steps=6000),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=250_000, log_every=100, save_every=10_000, sample_every=10_000),
        network=VQVAEConfig(
            levels=1,
            stride=4,
            channels=256,
            blocks=2,
            block_channels=256,
            code_size=64,
            codes=512,
            ema=False,
            learning_rate=2e-4,
        ),
        prior=CodePriorConfig(prior_steps=250_000, prior_channels=256, prior_layers=14, prior_learning_rate=3e-4),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoencoders import vqvae
    from jgen.recipes.common import Experiment, resolved

    config = resolved(config)
    return Experiment(vqvae.stages(config.network, config.prior, config.data, config.train, config.sampling))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
