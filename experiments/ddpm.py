"""DDPM: denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

    python -m experiments.ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ddpm --preset cifar10           # the paper's run, for accelerators

Target of the cifar10 preset: FID 3.17 with 50,000 samples and the fixed large variance (paper, table 1). The paper
trained 800,000 steps of 128 images with a 35.7 M parameter U-Net: 10.6 hours on a TPU v3-8.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._diffusion import (
    CIFAR10,
    FASHION_MNIST,
    ChainKnobs,
    asked,
    classes,
    null_label,
    optimizer,
    paper_steps,
    schedule,
    unet,
)
from experiments._sampling import ChainSolver, Solver, SolverName, bounded, chain_levels, check_churn, free_guidance, solve

if TYPE_CHECKING:
    from jgen.experiment import Experiment, Stage
    from jgen.models.unet import UNet
    from jgen.schedules import Schedule
    from jgen.types import Denoise, Params, Predict

SamplerName = Literal["ddim", "ddpm", SolverName]
DISCRETE = ("ddim", "ddpm")
"""Those of the discrete coordinates."""
Raw = Callable[[Any, Any, Any], Any]
"""(x_t, t, label) -> what a network predicts."""
Variance = Literal["small", "large", "learned_range"]


@dataclass(frozen=True)
class Sampling(ChainSolver):
    sampler: SamplerName = "ddim"
    """ddpm is ancestral sampling, dpm multistep DPM-Solver++; all but the first two run in continuous coordinates."""
    steps: int = 50
    """Of ddim and ddpm evenly spaced over the chain."""
    eta: float = 0.0
    """Noise of DDIM: 0 none, 1 as much as ancestral sampling."""
    variance: Variance = "large"
    """Of ancestral sampling: the posterior's, beta, or as a network learned it."""


@dataclass(frozen=True)
class Config(ChainKnobs):
    sampling: Sampling = Sampling()
    min_snr: float = 0.0
    """Weigh the loss by min(SNR, this); 0 for the simple loss."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**FASHION_MNIST),
    "cifar10": Config(
        **CIFAR10,
        train=paper_steps(800_000),
        sampling=Sampling("ddpm", steps=1000),
        num_res_blocks=2,
        head_channels=0,
        dropout=0.1,
    ),
}


def network(config: Config, outputs: int = 1) -> "UNet":
    """The U-Net, with `outputs` times the channels of an image: 2 where it learns its variance."""
    return unet(config, outputs * config.data.shape[-1], config.train.dtype, config.train.remat)


def raw(config: Config, params: "Params", outputs: int = 1) -> Raw:
    """The network as it is: (x_t, t, label) -> what it predicts."""
    net = network(config, outputs)
    return lambda x, t, label: net.apply({"params": params["net"]}, x, t, label)


def predicting(config: ChainKnobs, options: "Sampling", network: Raw, label: Any = None) -> "Predict":
    """(x_t, t) -> the clean image within [-1, 1], guided as the options say: what every discrete-time sampler takes."""
    from jgen.objectives import diffusion

    chain = schedule(config)

    def call(x, t, label):
        return diffusion.predictor(lambda x, t: network(x, t, label), chain, config.prediction)(x, t)

    return bounded(options, free_guidance(config, options, call, label, chain=chain))


def denoising(config: ChainKnobs, options: Solver, network: Raw, label: Any = None) -> "Denoise":
    """(x, sigma) -> the same: what the samplers of the continuous coordinates take."""
    from jgen.objectives import edm

    form = edm.chain(schedule(config), config.prediction)

    def call(x, sigma, label):
        return edm.denoiser(lambda x, t: network(x, t, label), form)(x, sigma)

    return bounded(options, free_guidance(config, options, call, label))


def predictor(
    config: Config, params: "Params", label: Any = None, options: Sampling = Sampling(), outputs: int = 1
) -> "Predict":
    """`predicting` of a run's weights."""
    return predicting(config, options, raw(config, params, outputs), label)


def walk(chain: "Schedule", options: Sampling, predict: "Predict", keys: Any, shape: tuple[int, ...]) -> Any:
    """Images by one of the samplers of the discrete coordinates. Raises UserError for churn, which they do not take."""
    from jgen import samplers

    check_churn(options)
    x = samplers.noise(keys, shape)
    if options.sampler == "ddim":
        return samplers.ddim(predict, chain, x, keys, timesteps=options.steps, eta=options.eta)
    return samplers.ancestral(predict, chain, x, keys, timesteps=options.steps, variance=options.variance)


def solved(chain: "Schedule", options: Solver, denoise: "Denoise", keys: Any, shape: tuple[int, ...]) -> Any:
    """Images by one of the samplers of the continuous coordinates."""
    import jax.numpy as jnp

    return jnp.clip(solve(denoise, options, keys, shape, chain_levels(options, chain)), -1, 1)


def draw(config: ChainKnobs, options: Sampling, network: Raw, label: Any, keys: Any, shape: tuple[int, ...]) -> Any:
    """Images of a network by any sampler, guided or not."""
    if options.sampler in DISCRETE:
        return walk(schedule(config), options, predicting(config, options, network, label), keys, shape)
    return solved(schedule(config), options, denoising(config, options, network, label), keys, shape)


def sampler(config: Config, outputs: int = 1):
    """The experiment's `sample`."""

    def sample(params, extra, keys, options: Sampling):
        label = asked(config, keys, options.label)
        return draw(config, options, raw(config, params, outputs), label, keys, config.data.shape)

    return sample


def loss_by_time(config: Config, apply):
    """The evaluation of a run: its loss at ten times of the chain, their mean, and how well DDIM gives held-out images back."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.metrics.image_quality import psnr
    from jgen.objectives import diffusion

    chain = schedule(config)
    times = jnp.linspace(0, len(chain) - 1, 10).round().astype(jnp.int32)

    @jax.jit
    def losses(params, key, batch):
        label = batch["label"] if config.conditional else None

        def net(x, t):
            return apply(params["net"], x, t, label)

        return diffusion.loss_by_time(net, chain, batch["image"], key, times, config.prediction)

    @jax.jit
    def inversion(params, batch):
        """PSNR of images that DDIM turned into noise and back."""
        label, steps = batch["label"] if config.conditional else None, min(100, len(chain))

        def predict(x, t):
            net = lambda x, t: apply(params["net"], x, t, label)  # noqa: E731
            return diffusion.predictor(net, chain, config.prediction)(x, t)

        x0, keys = batch["image"], samplers.image_keys(0, len(batch["image"]))
        back = samplers.ddim(predict, chain, samplers.ddim_invert(predict, chain, x0, timesteps=steps), keys, timesteps=steps)
        return jnp.mean(psnr(x0, jnp.clip(back, -1, 1)))

    def evaluate(params, extra, key, batches, count):
        total = 0.0
        for i in range(count):
            batch = next(batches)
            total = total + losses(params, jax.random.fold_in(key, i), batch) / count
        found = {f"psnr_db of DDIM there and back, {min(100, len(chain))} steps": inversion(params, batch)}
        rows = {f"loss at t={t}": v for t, v in zip(times, total)}
        return {"loss (mean of the rows below)": total.mean(), **rows, **found}

    return evaluate


def stage(config: Config, name: str, objective, evaluate, outputs: int = 1, extra: Any = None) -> "Stage":
    """One stage of discrete-time diffusion. objective(apply, **how) -> loss; evaluate(apply) -> evaluation."""
    import jax.numpy as jnp

    from jgen.experiment import Stage
    from jgen.train import Phase
    from jgen.train.rates import ramped

    net, shape = network(config, outputs), config.data.shape

    def apply(params, x, t, label, **kwargs):
        return net.apply({"params": params}, x, t, label, **kwargs)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if classes(config) else None
        return {"net": net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label)["params"]}, extra or {}

    how = dict(conditional=config.conditional, drop_label=config.drop_label, null_label=null_label(config))
    return Stage(
        name=name,
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", objective(apply, **how))],
        optimizers={"net": optimizer(config, config.train.steps)},
        ema={"net": ramped(config.ema)},
        supports=frozenset(("dtype", "remat")),
        sample=sampler(config, outputs),
        options=config.sampling,
        validate=objective(apply, **how, train=False),
        evaluate=evaluate(apply),
    )


def simple_objective(config: Config):
    """`stage`'s objective: the simple loss, weighed by min-SNR where asked."""
    from jgen.objectives import diffusion

    chain = schedule(config)
    weights = diffusion.min_snr(chain, config.prediction, config.min_snr) if config.min_snr else None
    return lambda apply, **how: diffusion.simple(apply, chain, config.prediction, weights=weights, **how)


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.experiment import Experiment

    config = replace(config, data=resolve(config.data))
    return Experiment([stage(config, "ddpm", simple_objective(config), lambda apply: loss_by_time(config, apply))])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
