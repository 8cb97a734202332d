"""DDPM: denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

    python -m experiments.ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ddpm --preset cifar10           # the paper's run, for accelerators
    python -m experiments.ddpm evaluate --bound-steps 0   # the variational bound too, in bits/dim

Target of the cifar10 preset: FID 3.17 with 50,000 samples and the fixed large variance (paper, table 1). The paper
trained 800,000 steps of 128 images with a 35.7 M parameter U-Net: 10.6 hours on a TPU v3-8.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import jgen
from experiments import classifier
from experiments._bound import bound
from experiments._diffusion import (
    CIFAR10,
    FASHION_MNIST,
    ChainKnobs,
    both,
    classes,
    null_label,
    optimizer,
    paper_steps,
    schedule,
    unet,
)
from experiments._editing import edit_levels, edits, told_of
from experiments._judge import Judge, asked, borrow, guide, heard, steered, steered_predictor
from experiments._sampling import (
    OF_CHAIN,
    SamplerName,
    TimedSolver,
    Variance,
    bounded,
    by_chain,
    check,
    free_guidance,
    level_of,
)

if TYPE_CHECKING:
    from jgen.experiment import Experiment, Picture, Stage
    from jgen.models.unet import UNet
    from jgen.types import Denoise, Params, Predict

Raw = Callable[[Any, Any, Any], Any]
"""(x_t, t, label) -> what a network predicts."""


@dataclass(frozen=True)
class Sampling(TimedSolver):
    sampler: SamplerName = "ddim"
    """ddpm is ancestral sampling, dpm multistep DPM-Solver++; all but ddim and ddpm run in continuous coordinates."""
    steps: int = 50
    """Of ddim and ddpm evenly spaced over the chain."""
    variance: Variance = "large"
    """Of ancestral sampling and of the bound: the posterior's, beta, or as a network learned it."""
    bound_steps: int = -1
    """Of `evaluate`: the variational bound along so many steps of the chain too, a network call each; 0 for all, -1 for no
    bound."""


@dataclass(frozen=True)
class Config(ChainKnobs):
    sampling: Sampling = Sampling()
    min_snr: float = 0.0
    """Weigh the loss by min(SNR, this); 0 for the simple loss."""
    learn_variance: bool = False
    """Learn the variance of the steps back too, by the hybrid loss (see experiments.improved_ddpm)."""


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


def network(config: Config) -> "UNet":
    """The U-Net, with twice the channels of an image where it learns its variance."""
    return unet(config, (1 + config.learn_variance) * config.data.shape[-1], config.train.dtype, config.train.remat)


def raw(config: Config, params: "Params") -> Raw:
    """The network as it is: (x_t, t, label) -> what it predicts."""
    net = network(config)
    return lambda x, t, label: net.apply({"params": params["net"]}, x, t, heard(config, label))


def predicting(
    config: ChainKnobs, options: TimedSolver, network: Raw, label: Any, null: Any = None, pixels: bool = True,
    by: Judge | None = None,
) -> "Predict":  # fmt: skip
    """(x_t, t) -> the clean image, guided as the options say: what every discrete-time sampler takes.

    pixels: it is kept within [-1, 1]. null: as of `free_guidance`. by: what judges images of the label, where one does.
    """
    from jgen.objectives import diffusion

    chain = schedule(config)

    def call(x, t, label):
        return diffusion.predictor(lambda x, t: network(x, t, label), chain, config.prediction)(x, t)

    guided = free_guidance(config, options, call, label, null, level_of(chain))
    return steered_predictor(options, bounded(options, guided) if pixels else guided, by, level_of(chain))


def denoising(
    config: ChainKnobs, options: TimedSolver, network: Raw, label: Any, null: Any = None, pixels: bool = True,
    by: Judge | None = None,
) -> "Denoise":  # fmt: skip
    """(x, sigma) -> the same: what the samplers of the continuous coordinates take."""
    from jgen.objectives import edm

    form = edm.chain(schedule(config), config.prediction)

    def call(x, sigma, label):
        return edm.denoiser(lambda x, t: network(x, t, label), form)(x, sigma)

    guided = free_guidance(config, options, call, label, null)
    return steered(options, bounded(options, guided) if pixels else guided, by)


def predictor(config: Config, params: "Params", label: Any = None, options: Sampling = Sampling()) -> "Predict":
    """`predicting` of a run's weights."""
    return predicting(config, options, raw(config, params), label)


def draw(
    config: ChainKnobs, options: TimedSolver, network: Raw, label: Any, keys: Any, shape: tuple[int, ...], null: Any = None,
    pixels: bool = True, by: Judge | None = None,
) -> Any:  # fmt: skip
    """Images, or latents, of a network by any sampler, guided or not. null, pixels, by: as of `predicting`."""
    predict, denoise = (make(config, options, network, label, null, pixels, by) for make in (predicting, denoising))
    return by_chain(schedule(config), options, predict, denoise, keys, shape)


def heeded(options: Sampling) -> Mapping[str, Sequence[str]]:
    """Which samplers heed which options; where the bound is asked for, it takes the variance whatever the sampler."""
    return {name: takers for name, takers in OF_CHAIN.items() if name != "variance" or options.bound_steps == -1}


def judging(
    config: Config, own: classifier.Config | None, options: Sampling, params: "Params", extra: Any, label: Any
) -> Judge | None:
    """What judges the images, if the options ask for it; own: as of `sampler`."""
    return guide(options, extra, label, config.data.shape, own and (own, params.get("classifier")))


def sampler(config: Config, own: classifier.Config | None = None):
    """The experiment's `sample`. own: settings of the classifier that it trains as a stage, where it does."""
    import jax.numpy as jnp

    def sample(params, extra, keys, options: Sampling):
        check(options, config.sampling, heeded(options))
        label = asked(config, keys, options)
        by = judging(config, own, options, params, extra, label)
        return jnp.clip(draw(config, options, raw(config, params), label, keys, config.data.shape, by=by), -1, 1)

    return sample


def editing(config: Config, own: classifier.Config | None = None) -> "dict[str, Picture]":
    """The experiment's edited images; own: as of `sampler`."""
    options = config.sampling

    def denoiser_of(params, extra, label):
        by = judging(config, own, options, params, extra, label)
        return denoising(config, options, raw(config, params), label, by=by)

    return edits(options, denoiser_of, partial(edit_levels, schedule(config)), told_of(config))


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


def with_bound(config: Config, evaluate: Any) -> Any:
    """The evaluation and, where it is asked for, the variational bound."""
    if config.sampling.bound_steps == -1:
        return evaluate
    return both(bound(config, config.sampling, partial(raw, config)), evaluate)


def stage(config: Config, name: str, objective, evaluate, extra: Any = None) -> "Stage":
    """One stage of discrete-time diffusion. objective(apply, **how) -> loss; evaluate(apply) -> evaluation."""
    import jax.numpy as jnp

    from jgen.experiment import Stage
    from jgen.train import Phase
    from jgen.train.rates import ramped

    net, shape = network(config), config.data.shape

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
        sample=sampler(config),
        on_request=editing(config),
        options=config.sampling,
        borrow=borrow,
        validate=objective(apply, **how, train=False),
        evaluate=evaluate(apply),
    )


def simple_objective(config: Config):
    """`stage`'s objective: the simple loss, weighed by min-SNR where asked, or the hybrid one where the variance is learned."""
    from jgen.errors import UserError
    from jgen.objectives import diffusion, vlb

    chain = schedule(config)
    if config.learn_variance and config.min_snr:
        raise UserError(f"min_snr={config.min_snr}: weighs the simple loss alone, without learn_variance")
    if config.learn_variance:
        return lambda apply, **how: vlb.hybrid(apply, chain, config.prediction, **how)
    weights = diffusion.min_snr(chain, config.prediction, config.min_snr) if config.min_snr else None
    return lambda apply, **how: diffusion.simple(apply, chain, config.prediction, weights=weights, **how)


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.experiment import Experiment

    config = replace(config, data=resolve(config.data))
    return Experiment(
        [stage(config, "ddpm", simple_objective(config), lambda apply: with_bound(config, loss_by_time(config, apply)))]
    )


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
