"""NVAE (Vahdat & Kautz 2020, arXiv:2007.03898) with a noise contrastive prior (Aneja et al. 2020, arXiv:2010.02917).

    python -m experiments.ncp_vae                            # digits, 8x8, the prior of a plain VAE: under 2 minutes on a core
    python -m experiments.ncp_vae --base nvae                # that of NVAE: 7 minutes
    python -m experiments.ncp_vae --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ncp_vae --flows 1                  # with normalising flows in the posteriors
    python -m experiments.ncp_vae --preset cifar10           # the paper's run, for accelerators
    python -m experiments.ncp_vae sample --method langevin
    python -m experiments.ncp_vae evaluate --metrics fd --num 1000 --method prior     # without the classifiers

Two stages, one command: the VAE, then for each of its groups of latents a classifier that tells the posteriors' draws from the
prior's; its logit is the log of the ratio that the prior is multiplied by. Target of the cifar10 preset: FID 24.08, where the
base prior of the authors' NVAE gives 51.71 with the same decoder. That NVAE has a Gaussian likelihood of the pixels; the one of
NVAE's paper is --likelihood mixture --spectral 0.01 (2.91 bits/dim). Both have a flow in every posterior. Likelihoods are
bounds: of the density of values (gaussian), of the 8-bit values (mixture), or of binary ones (bernoulli).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig, paper_steps
from jgen.config.nvae import AdamaxConfig, NCPConfig, NCPSampling, NVAEConfig, NVAELossConfig, PlainVAEConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, log_every=10, save_every=500, sample_every=500)
    """Training of the VAE."""
    mesh: MeshConfig = MeshConfig()
    sampling: NCPSampling = NCPSampling()
    base: Literal["nvae", "vae"] = "nvae"
    """The VAE whose prior is improved."""
    network: Flat[NVAEConfig] = NVAEConfig()
    loss: Flat[NVAELossConfig] = NVAELossConfig()
    first_optimizer: AdamaxConfig = AdamaxConfig()
    """The optimizer of NVAE."""
    vae: PlainVAEConfig = PlainVAEConfig()
    """In place of network, loss and first_optimizer, with --base vae."""
    ncp: Flat[NCPConfig] = NCPConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(1e-3, final_learning_rate=0.02, ema=0.998)
    """Adam of the classifiers."""


PRESETS = {
    "digits": Config(base="vae"),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=3000, log_every=10, save_every=500, sample_every=1000),
        network=NVAEConfig(16, 8, (3, 3), 1),
        ncp=NCPConfig(2000),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=256, flip=True),
        train=paper_steps(78_000),
        sampling=NCPSampling(proposals=5000),
        network=NVAEConfig(128, 20, (30,), 1, 2, 2, 2, flows=1),
        loss=NVAELossConfig(spectral=0.1),
        first_optimizer=AdamaxConfig(warmup=975),
        ncp=NCPConfig(19_500, 128, 4),
        optimizer=OptimizerConfig(1e-3, warmup=0, final_learning_rate=0.0, clip=0.0, ema=0.0),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.autoencoders import ncp
    from jgen.recipes.common import Experiment, resolved

    c = resolved(config)
    trained, optimizer = (c.ncp, c.data, c.train), c.optimizer
    if c.base == "vae":
        return Experiment(ncp.vae_stages(c.vae, *trained, optimizer, c.sampling))
    return Experiment(ncp.nvae_stages(c.network, c.loss, *trained, c.first_optimizer, optimizer, c.sampling))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
