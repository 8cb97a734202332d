"""Variational autoencoders and their relatives (Kingma & Welling 2013, arXiv:1312.6114).

    python -m experiments.vae                              # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.vae --kind denoising             # also plain, sparse_kl, sparse_l1, iwae
    python -m experiments.vae --preset fashion_mnist       # 28x28, binarised: an hour on a CPU core
    python -m experiments.vae --preset cifar10             # convolutional, for accelerators

Target of the fashion_mnist preset: 229 nats on the test set, the importance-weighted bound with 5,000 draws of a gated MLP
with 40 latents on dynamically binarised Fashion-MNIST (Norouzi et al. 2020, arXiv:2004.04795, report 228.7 for one trained on
the evidence bound; the preset trains on the importance-weighted one, with 5 draws). The cifar10
preset has a discretised logistic likelihood; Kingma et al. 2016 report 4.54 bits/dim or less for such models. Likelihoods are
bounds: of the 8-bit values (logistic), of binary ones (bernoulli), or a density of values with uniform noise (gaussian with
--data.dequantize).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig
from jgen.config.autoencoder import VAEConfig, VAELossConfig, VAESampling

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=3000, scan=10, log_every=10, save_every=1000, sample_every=1000)
    mesh: MeshConfig = MeshConfig(devices=1)
    """A network this small is slower on several CPU devices than on one that uses all cores."""
    sampling: VAESampling = VAESampling()
    network: Flat[VAEConfig] = VAEConfig()
    loss: Flat[VAELossConfig] = VAELossConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(1e-3, warmup=200, final_learning_rate=0.02, clip=0.0, ema=0.998)


PRESETS = {
    "digits": Config(
        train=TrainConfig(steps=25_000, scan=10, log_every=100, save_every=5000, sample_every=5000),
        network=VAEConfig(c=0.3, widths=(512, 512)),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=100),
        train=TrainConfig(steps=150_000, scan=10, log_every=100, save_every=10_000, sample_every=50_000),
        network=VAEConfig(kind="iwae", likelihood="bernoulli", latents=40, widths=(300, 300), gated=True),
        loss=VAELossConfig(bound_samples=5000),
        optimizer=OptimizerConfig(1e-3, warmup=200, final_learning_rate=0.02, clip=60.0, ema=0.999),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=6000, save_every=1500, sample_every=3000, log_every=100),
        network=VAEConfig(latents=64, channels=(32, 64, 96)),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=200_000, log_every=100, save_every=10_000, sample_every=10_000),
        mesh=MeshConfig(),
        network=VAEConfig(likelihood="logistic", latents=256, channels=(64, 128, 256)),
        loss=VAELossConfig(free_bits=0.03),
        optimizer=OptimizerConfig(1e-3, warmup=200, final_learning_rate=0.02, clip=0.0, ema=0.9995),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoencoders import vae
    from jgen.recipes.common import Experiment, resolved

    config = resolved(config)
    stage = vae.stage(config.network, config.loss, config.optimizer, config.data, config.train, config.sampling)
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
