"""Improved DDPM: learned variances and the variational bound (Nichol & Dhariwal 2021, arXiv:2102.09672).

    python -m experiments.improved_ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --objective vlb            # the bound itself, times drawn by the size of their losses
    python -m experiments.improved_ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.improved_ddpm --preset cifar10           # the paper's run, for accelerators

Target of the cifar10 preset: FID 2.90 and 3.37 bits/dim with the hybrid loss (paper, table 2; 2.94 bits/dim with the bound
itself). `evaluate` gives the bound of held-out images in bits/dim (discrete, 8-bit values), and its parts.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from experiments import ddpm
from experiments._diffusion import CIFAR10, FASHION_MNIST, ChainName, paper_steps
from experiments._sampling import SamplerName, Variance

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Sampling(ddpm.Sampling):
    sampler: SamplerName = "ddpm"
    variance: Variance = "learned_range"
    """Of ancestral sampling: the posterior's, beta, or as the network learned it."""


@dataclass(frozen=True)
class Config(ddpm.Config):
    sampling: Sampling = Sampling()
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    learn_variance: bool = True
    """Always."""
    objective: Literal["hybrid", "vlb"] = "hybrid"
    """hybrid: the simple loss, and 0.001 of the bound for the variance; vlb: the bound itself."""
    evaluation_steps: int = 0
    """Steps of the chain whose bound `evaluate` gives; 0 for all."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**FASHION_MNIST),
    "cifar10": Config(
        **{**CIFAR10, "learning_rate": 1e-4, "warmup": 0},
        train=paper_steps(500_000),
        sampling=Sampling(steps=4000),
        num_res_blocks=3,
        attention=(2, 4),
        scale_shift_norm=True,
        dropout=0.3,
        diffusion_steps=4000,
    ),
}


def bound(config: Config, apply):
    """The evaluation of a run: the bound in bits/dim, the prior's and the last step's share of it, and its three thirds."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.objectives import diffusion, vlb
    from jgen.samplers.common import shorten

    full = ddpm.schedule(config)
    chain = shorten(full, config.evaluation_steps or None)

    @jax.jit
    def measure(params, key, batch):
        x0, label = batch["image"], batch["label"] if config.conditional else None
        predict = diffusion.predictor(lambda x, t: apply(params["net"], x, t, label), full, config.prediction)

        def noise(t):
            return jax.random.normal(jax.random.fold_in(key, t), x0.shape)

        return jax.tree.map(lambda v: jnp.mean(v, 0), vlb.bound(samplers.clip(predict), chain, x0, noise))

    def evaluate(params, extra, key, batches, count):
        found = [measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        mean = jax.tree.map(lambda *v: sum(v) / count, *found)
        third = len(chain) // 3
        parts = {
            "noisiest": mean.terms[:third],
            "middle": mean.terms[third : 2 * third],
            "cleanest": mean.terms[2 * third : -1],
        }
        return {
            "bits_per_dim_discrete_bound": mean.total,
            "of it the prior": mean.prior,
            **{f"of it the {name} third": jnp.sum(values) for name, values in parts.items()},
            "of it the last step (decoder)": mean.terms[-1],
            "mean square error of the noise": jnp.mean(mean.eps_error),
        }

    return evaluate


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
    if config.evaluation_steps == 1 or config.evaluation_steps < 0:
        raise UserError(f"evaluation_steps={config.evaluation_steps}: must be at least 2, or 0 for all")
    chain, learned = ddpm.schedule(config), config.objective == "vlb"

    def objective(apply, **how):
        if learned:
            return vlb.vlb(apply, chain, config.prediction, **how, importance=how.get("train", True))
        return vlb.hybrid(apply, chain, config.prediction, **how)

    extra = {"importance": new_history(len(chain))} if learned else {}
    return Experiment([
        ddpm.stage(config, "improved_ddpm", objective, lambda apply: bound(config, apply), extra=extra)
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
