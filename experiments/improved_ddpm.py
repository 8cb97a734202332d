"""Improved DDPM: learned variances and the variational bound (Nichol & Dhariwal 2021, arXiv:2102.09672).

    python -m experiments.improved_ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --objective vlb            # the bound itself, times drawn by the size of their losses
    python -m experiments.improved_ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --preset cifar10           # the paper's run, for accelerators

Target of the cifar10 preset: FID 3.19 and 3.17 bits/dim with the hybrid loss along the cosine chain (paper, table 2; 2.94
bits/dim with the bound itself). `evaluate` gives the bound of held-out images in bits/dim (discrete, 8-bit values), and its
parts.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import jgen
from experiments import ddpm
from experiments._bound import bound
from experiments._diffusion import CIFAR10, FASHION_MNIST, ChainName, paper_steps
from experiments._sampling import SamplerName, Variance
from jgen.config import DataConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Sampling(ddpm.Sampling):
    sampler: SamplerName = "ddpm"
    variance: Variance = "learned_range"
    """Of ancestral sampling and of the bound: the posterior's, beta, or as the network learned it."""
    bound_steps: int = 0
    """Of `evaluate`: the variational bound along so many steps of the chain; 0 for all."""


@dataclass(frozen=True)
class Config(ddpm.Config):
    sampling: Sampling = Sampling()
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    learn_variance: bool = True
    """Always."""
    objective: Literal["hybrid", "vlb"] = "hybrid"
    """hybrid: the simple loss, and 0.001 of the bound for the variance; vlb: the bound itself."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**FASHION_MNIST),
    "cifar10": Config(
        **{**CIFAR10, "data": DataConfig("cifar10", batch_size=128), "learning_rate": 1e-4, "warmup": 0, "clip": 0.0},
        train=paper_steps(500_000),
        sampling=Sampling(steps=4000),
        num_res_blocks=3,
        attention=(2, 4),
        scale_shift_norm=True,
        dropout=0.3,
        diffusion_steps=4000,
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment
    from jgen.objectives import vlb
    from jgen.objectives.importance import new_history

    config = replace(config, data=resolve(config.data))
    if not config.learn_variance:
        raise UserError("learn_variance=False: this experiment is about learned variances; see experiments.ddpm")
    if config.min_snr:
        raise UserError(f"min_snr={config.min_snr}: weighs the simple loss of ddpm, not the {config.objective} one")
    if config.sampling.bound_steps == -1:
        raise UserError("bound_steps=-1: this experiment's evaluation is the bound; must be at least 2, or 0 for all steps")
    chain, learned = ddpm.schedule(config), config.objective == "vlb"

    def objective(apply, **how):
        if learned:
            return vlb.vlb(apply, chain, config.prediction, **how, importance=how.get("train", True))
        return vlb.hybrid(apply, chain, config.prediction, **how)

    extra = {"importance": new_history(len(chain))} if learned else {}
    evaluate = bound(config, config.sampling, partial(ddpm.raw, config))
    return Experiment([ddpm.stage(config, "improved_ddpm", objective, lambda apply: evaluate, extra=extra)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
