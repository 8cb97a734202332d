"""DDPM: denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

    python -m experiments.ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ddpm --preset cifar10           # the paper's run, for accelerators
    python -m experiments.ddpm evaluate --bound-steps 0   # the variational bound too, in bits/dim
    python -m experiments.ddpm edit --image PHOTO.png     # SDEdit; --mask left inpaints; invert and mix by DDIM's noise

Target of the cifar10 preset: FID 3.17 with 50,000 samples and the fixed large variance (paper, table 1). The paper
trained 800,000 steps of 128 images with a 35.7 M parameter U-Net: 10.6 hours on a TPU v3-8. The presets for CPUs train for
minutes, and differ where the paper's settings need its length: they sample with noise (--sampling.eta 1), and digits predicts v
along a cosine schedule (docs/samplers.md shows why).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    NonNegative,
    OptimizerConfig,
    TrainConfig,
    UNetConfig,
    paper_steps,
)
from jgen.config.samplers import DDIM, DDPM

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Sampling(DiffusionSampling):
    bound: Inline[Bound] = Bound()


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    network: Flat[UNetConfig] = UNetConfig()
    labels: Flat[LabelConfig] = LabelConfig()
    chain: Flat[ChainConfig] = ChainConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()
    min_snr: NonNegative = 0.0
    """Weigh the loss by min(SNR, this); 0 for the simple loss."""
    learn_variance: bool = False
    """Learn the variance of the steps back too, by the hybrid loss (see experiments.improved_ddpm)."""


PRESETS = {
    # A short training shows in the deterministic path: noise on the way (eta 1) and v along a cosine draw cleaner images.
    "digits": Config(
        train=TrainConfig(steps=1500, save_every=500, sample_every=500),
        sampling=Sampling(DDIM(50, eta=1.0)),
        chain=ChainConfig(schedule="cosine", prediction="v"),
    ),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        sampling=Sampling(DDIM(50, eta=1.0)),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        sampling=Sampling(DDIM(50, eta=1.0)),
        network=UNetConfig(channel_mult=(1, 2, 2), attention=(4,)),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=paper_steps(800_000),
        sampling=Sampling(DDPM(1000, variance="large")),
        network=UNetConfig(channels=128, channel_mult=(1, 2, 2, 2), num_res_blocks=2, head_channels=0, dropout=0.1),
        optimizer=OptimizerConfig(learning_rate=2e-4, warmup=5000, final_learning_rate=1.0, ema=0.9999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion import chain

    c = resolved(config)
    recipe = chain.chain_recipe(c.network, c.chain, c.labels, c.data, c.train, c.learn_variance)
    own: dict[str, Any] = dict(min_snr=c.min_snr, learn_variance=c.learn_variance)
    return Experiment([chain.ddpm_stage("ddpm", recipe, c.data, c.train, c.optimizer, c.sampling, c.sampling.bound, **own)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
