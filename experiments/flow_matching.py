"""Flow matching on straight paths, or rectified flow (Lipman et al. 2022, arXiv:2210.02747; Liu et al. 2022, arXiv:2209.03003).

    python -m experiments.flow_matching                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.flow_matching --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.flow_matching --preset cifar10           # for accelerators

Target of the cifar10 preset: FID 2.58 with RK45 and a tolerance of 1e-5 (rectified flow, table 1; flow matching reports 6.35
with its smaller network). The velocity network is a denoiser in other words (`jgen.objectives.edm.flow`), so every sampler of
the continuous coordinates runs it; euler with --sampling.grid time is the plain Euler method along the path.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from experiments._continuous import Continuous
from experiments._diffusion import CIFAR10, FASHION_MNIST, Knobs, paper_steps, unet
from experiments._sampling import SamplerName, TimedSolver

if TYPE_CHECKING:
    import numpy as np

    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Sampling(TimedSolver):
    sampler: SamplerName = "dpm"
    steps: int = 25
    grid: Literal["time", "log_snr", "karras", "uniform", "quadratic"] = "karras"
    """How the noise levels sigma = t / (1 - t) are spaced: by the times t of the path, or of themselves."""


@dataclass(frozen=True)
class Config(Knobs):
    sampling: Sampling = Sampling()
    logit_normal: bool = True
    """Train times drawn logit-normally, more of them in the middle; else uniformly."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**FASHION_MNIST),
    "cifar10": Config(
        **CIFAR10,
        train=paper_steps(600_000),
        sampling=Sampling("rk45", tolerance=1e-5),
        num_res_blocks=4,
        dropout=0.15,
        logit_normal=False,
    ),
}

ENDS = (0.01, 200.0)
"""Levels of sampling, t / (1 - t): almost the whole path."""


def by_time(steps: int, sigma_max: float) -> "np.ndarray":
    """Levels [steps + 1] evenly spaced in t, from that of sigma_max down to 0."""
    import numpy as np

    t = np.linspace(sigma_max / (1 + sigma_max), 0, steps + 1)
    return t / (1 - t)


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.objectives import edm

    config = replace(config, data=resolve(config.data))
    net = unet(config, config.data.shape[-1], config.train.dtype, config.train.remat)
    form = edm.flow()
    # The U-Net's time embedding is made for 0..1000.
    form = replace(form, noise=lambda sigma: 1000 * sigma / (1 + sigma))
    trained_on = edm.flow_levels(logit_normal=config.logit_normal)
    return Experiment([Continuous(config, net, form, trained_on, ENDS, by_time).stage("flow_matching", ("dtype", "remat"))])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
