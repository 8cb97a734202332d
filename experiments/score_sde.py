"""Score-based models along an SDE: VE, VP and sub-VP (Song et al. 2021, arXiv:2011.13456).

    python -m experiments.score_sde                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.score_sde --sde ve                   # or subvp
    python -m experiments.score_sde --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.score_sde --preset cifar10           # the paper's run, for accelerators

`evaluate` gives the exact likelihood in bits/dim by the probability-flow ODE, of images with uniform dequantisation. Target of
the cifar10 preset (deep NCSN++, continuous VE): FID 2.20; of sub-VP with DDPM++: 2.99 bits/dim (tables 2 and 3). The paper
trained 1.3 million steps of 128 images.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments import _sampling
from experiments._diffusion import CIFAR10, FASHION_MNIST, Knobs, null_label, optimizer, paper_steps, song_unet, unet
from experiments._editing import edits, told_of
from experiments._judge import Judge, asked, borrow, guide, heard, steered, steered_score
from experiments._sampling import (
    CONTINUOUS,
    DISCRETE,
    SamplerName,
    TimedSolver,
    bounded,
    check,
    free_guidance,
    from_noise,
    levels,
)
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.sde import SDE
    from jgen.types import Denoise, Sample


OWN = ("pc", "ode")
PC_ALONE = ("predictor", "corrector", "corrector_steps", "snr")
DENOISING = (*DISCRETE, *CONTINUOUS)
HEEDED = {
    **{name: takers for name, takers in _sampling.HEEDED.items() if name != "tolerance"},  # the likelihood heeds it too
    **{name: ("pc",) for name in PC_ALONE},
    **{name: DENOISING for name in ("sigma_min", "threshold")},
    "steps": ("pc", *_sampling.HEEDED["steps"]),
}
"""Options that are for some samplers alone."""


@dataclass(frozen=True)
class Sampling(TimedSolver):
    """How the reverse process is run."""

    sampler: Literal["pc", "ode", SamplerName] = "pc"
    """Predictor-corrector, the probability-flow ODE with adaptive steps, or any sampler of a denoiser."""
    steps: int = 200
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] = "reverse_diffusion"
    """Of pc."""
    corrector: Literal["langevin", "annealed", "none"] = "langevin"
    """Of pc."""
    corrector_steps: int = 1
    """Calls of the corrector before each of the predictor."""
    snr: float = 0.16
    """Of the corrector: how long its steps are."""
    tolerance: float = 1e-4
    """Of ode, dpm_adaptive and rk45, relative and absolute; and of the likelihood that `evaluate` gives."""


@dataclass(frozen=True)
class Config(Knobs):
    sampling: Sampling = Sampling()
    sde: Literal["ve", "vp", "subvp"] = "vp"
    network: Literal["unet", "ddpmpp", "ncsnpp"] = "unet"
    """ADM's U-Net, or the paper's two."""
    likelihood: bool = False
    """Weigh the loss so that it bounds the log-likelihood."""
    beta_min: float = 0.1
    """Of vp and subvp"""
    beta_max: float = 20.0
    sigma_min: float = 0.02
    """Levels of ve"""
    sigma_max: float = 20.0


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        **{**FASHION_MNIST, "train": TrainConfig(steps=1100, save_every=220, sample_every=550)}, sampling=Sampling(steps=200)
    ),
    "cifar10": Config(
        **{**CIFAR10, "data": DataConfig("cifar10", batch_size=128, flip=True)},
        train=paper_steps(1_300_000),
        sampling=Sampling(steps=1000),
        sde="ve",
        network="ncsnpp",
        num_res_blocks=8,
        dropout=0.1,
        sigma_min=0.02,  # twice the paper's, whose images are in [0, 1]
        sigma_max=100.0,
    ),
}


def process(config: Config, steps: int = 1000) -> "SDE":
    """The SDE, discretised in so many steps."""
    from jgen import sde

    if config.sde == "ve":
        return sde.ve(config.sigma_min, config.sigma_max, steps)
    return {"vp": sde.vp, "subvp": sde.sub_vp}[config.sde](config.beta_min, config.beta_max, steps)


def network(config: Config) -> Any:
    """(x, what it is told [B], label) -> the noise, or for ve minus the noise."""
    if config.network == "unet":
        return unet(config, config.data.shape[-1], config.train.dtype, config.train.remat)
    return song_unet(config, config.network, [config.data.shape[0] // factor for factor in config.attention])


def field(config: Config) -> Callable[..., Any]:
    """(params, x, t, label=None, **how) -> the score at time t."""
    from jgen import sde

    net, whole = network(config), process(config)

    def apply(params, x, t, label=None, **how):
        def call(x, told):
            return net.apply({"params": params}, x, told, label, **how)

        if config.sde != "ve":
            return sde.score_of(call, whole)(x, t)
        # Fourier features want the logarithm of the level; the U-Net's embedding is made for 0 to 1000.
        told = (lambda x, log: call(x, log)) if config.network == "ncsnpp" else (lambda x, log: call(x, 999 * t))
        return sde.score_of_level(told, whole)(x, t)

    return apply


def time_levels(whole: "SDE", steps: int) -> Any:
    """Noise levels [steps + 1] evenly spaced in the time of the SDE, 0 last."""
    import jax
    import numpy as np

    with jax.ensure_compile_time_eval():
        t = np.linspace(1.0, whole.end, steps, dtype=np.float32)
        return np.append(np.asarray(whole.std(t) / whole.mean(t), np.float64), 0.0)


def guided(
    config: Config, apply: Callable[..., Any], params: Any, options: Sampling, label: Any, by: Judge | None = None
) -> Any:
    """(x, t) -> the score, guided as the options say."""
    whole = process(config)

    from jgen.arrays import wide

    def call(x, t, label):
        return apply(params["net"], x, t, heard(config, label))

    def level(t):
        return whole.std(t) / whole.mean(t)

    score = free_guidance(config, options, call, label, level=level)
    return steered_score(options, score, by, lambda x, t: x / wide(whole.mean(t), x), level)


def denoising(
    config: Config, apply: Callable[..., Any], params: Any, options: Sampling, label: Any, by: Judge | None = None
) -> "Denoise":
    """(x, sigma) -> the clean image that the score shows."""
    from jgen import sde

    plain = bounded(options, sde.denoiser(process(config), guided(config, apply, params, options, label)))
    return steered(options, plain, by)


def grid_of(config: Config, options: Sampling) -> Any:
    """The noise levels of the samplers that take a denoiser."""
    whole = process(config)
    most, least, _ = time_levels(whole, 2)
    return levels(options, least, most, lambda steps, _: time_levels(whole, steps))


def sampler(config: Config, apply: Callable[..., Any]) -> "Sample":
    """Predictor-corrector, the probability-flow ODE, or the denoiser of the score under any sampler."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.samplers import pc, probability_flow

    whole, shape = process(config), config.data.shape

    def by_pc(x, keys, score, options):
        predictor = {**vars(pc), "none": None}[options.predictor]
        corrector = {"langevin": pc.langevin, "annealed": pc.annealed, "none": None}[options.corrector]
        if corrector is not None:
            corrector = jax.tree_util.Partial(corrector, snr=options.snr)
        how = dict(predictor=predictor, corrector=corrector, corrector_steps=options.corrector_steps)
        return samplers.predictor_corrector(process(config, options.steps), score, x, keys, **how)

    def sample(params, extra, keys, options):
        check(options, config.sampling, HEEDED)
        label = asked(config, keys, options)
        by = guide(options, extra, label, shape)
        if options.sampler not in OWN:
            denoise = denoising(config, apply, params, options, label, by)
            return jnp.clip(from_noise(denoise, options, keys, shape, grid_of(config, options)), -1, 1)
        x = whole.prior_std * samplers.noise(keys, shape)
        if options.sampler == "pc":
            return jnp.clip(by_pc(x, keys, guided(config, apply, params, options, label, by), options), -1, 1)
        tolerance = dict(rtol=options.tolerance, atol=options.tolerance)

        def score(x, t, label=None):
            return guided(config, apply, params, options, label, guide(options, extra, label, shape))(x, t)

        return jnp.clip(probability_flow.flow(whole, score, x, *(() if label is None else (label,)), **tolerance), -1, 1)

    return sample


def likelihood(config: Config, apply: Callable[..., Any]) -> Any:
    """The evaluation: exact bits/dim by the probability-flow ODE, and its standard error."""
    import jax
    import jax.numpy as jnp

    from jgen.metrics import BitsPerDim
    from jgen.objectives.score import projections
    from jgen.samplers import probability_flow

    tolerance = dict(rtol=config.sampling.tolerance, atol=config.sampling.tolerance)

    @jax.jit
    def bits(params, key, images, label):
        probe_key, level_key = jax.random.split(key)
        # Back to the 256 levels, then uniform noise within each: the density bounds that of the levels.
        levels = jnp.round((images + 1) * 127.5)
        x = (levels + jax.random.uniform(level_key, images.shape)) / 128 - 1
        score = lambda x, t: apply(params["net"], x, t, label if config.conditional else None)  # noqa: E731
        probes = projections(probe_key, x.shape)
        return probability_flow.bits_per_dim(process(config), score, x, probes, together=True, **tolerance)[0]

    def evaluate(params, extra, key, batches, count):
        found = []
        for i in range(count):
            batch = next(batches)
            found.append(bits(params, jax.random.fold_in(key, i), batch["image"], batch["label"]))
        found = jnp.concatenate(found)
        mean = BitsPerDim(float(jnp.mean(found)), "uniform", bound=False)
        return {mean.name: mean.bits, "its standard error over images": jnp.std(found) / len(found) ** 0.5}

    return evaluate


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp

    from jgen.data import resolve
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import score
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    apply = field(config)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if config.conditional else None
        return {"net": network(config).init(key, jnp.zeros((1, *config.data.shape)), jnp.zeros((1,)), label)["params"]}, {}

    def objective(train):
        how: dict[str, Any] = dict(likelihood=config.likelihood, conditional=config.conditional, train=train)
        how |= dict(drop_label=config.drop_label, null_label=null_label(config))
        return score.continuous(apply, process(config), **how)

    return Experiment([
        Stage(
            name="score_sde",
            data=config.data,
            train=config.train,
            init=init,
            phases=[Phase("net", objective(True))],
            optimizers={"net": optimizer(config, config.train.steps)},
            ema={"net": ramped(config.ema)},
            supports=frozenset(("dtype", "remat") if config.network == "unet" else ("dtype",)),
            sample=sampler(config, apply),
            on_request=edits(
                config.sampling,
                lambda params, extra, label: denoising(
                    config, apply, params, config.sampling, label, guide(config.sampling, extra, label, config.data.shape)
                ),
                partial(grid_of, config),
                told_of(config),
            ),
            options=config.sampling,
            borrow=borrow,
            validate=objective(False),
            evaluate=likelihood(config, apply),
        )
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
