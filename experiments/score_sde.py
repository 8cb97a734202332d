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
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._diffusion import CIFAR10, FASHION_MNIST, Knobs, asked, optimizer, paper_steps, song_unet, unet
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.sde import SDE
    from jgen.types import Sample


@dataclass(frozen=True)
class Sampling:
    """How the reverse process is run."""

    sampler: Literal["pc", "ode"] = "pc"
    """Predictor-corrector, or the probability-flow ODE with adaptive steps."""
    steps: int = 200
    """Of pc."""
    predictor: Literal["reverse_diffusion", "euler_maruyama", "ancestral", "none"] = "reverse_diffusion"
    corrector: Literal["langevin", "annealed", "none"] = "langevin"
    corrector_steps: int = 1
    """Calls of the corrector before each of the predictor."""
    snr: float = 0.16
    """Of the corrector: how long its steps are."""
    tolerance: float = 1e-4
    """Of ode, relative and absolute; and of the likelihood that `evaluate` gives."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


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


def sampler(config: Config, apply: Callable[..., Any]) -> "Sample":
    """Predictor-corrector, or the probability-flow ODE."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.errors import UserError
    from jgen.samplers import pc, probability_flow

    def solved(x, keys, score, options):
        predictor = {**vars(pc), "none": None}[options.predictor]
        corrector = {"langevin": pc.langevin, "annealed": pc.annealed, "none": None}[options.corrector]
        if corrector is not None:
            corrector = jax.tree_util.Partial(corrector, snr=options.snr)
        how = dict(predictor=predictor, corrector=corrector, corrector_steps=options.corrector_steps)
        return samplers.predictor_corrector(process(config, options.steps), score, x, keys, **how)

    def sample(params, extra, keys, options):
        label = asked(config, keys, options.label)
        x = process(config).prior_std * samplers.noise(keys, config.data.shape)
        score = lambda x, t: apply(params["net"], x, t, label)  # noqa: E731
        if options.sampler == "pc":
            return jnp.clip(solved(x, keys, score, options), -1, 1)
        if label is not None:
            raise UserError("sampler=ode: takes images one by one, so no class-conditional model; sampler=pc does")
        tolerance = dict(rtol=options.tolerance, atol=options.tolerance)
        return jnp.clip(probability_flow.flow(process(config), score, x, **tolerance), -1, 1)

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
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import score
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    if config.drop_label:
        raise UserError(f"drop_label={config.drop_label}: this experiment has no guidance; see experiments.guided")
    apply = field(config)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if config.conditional else None
        return {"net": network(config).init(key, jnp.zeros((1, *config.data.shape)), jnp.zeros((1,)), label)["params"]}, {}

    def objective(train):
        how = dict(likelihood=config.likelihood, conditional=config.conditional, train=train)
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
            options=config.sampling,
            validate=objective(False),
            evaluate=likelihood(config, apply),
        )
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
