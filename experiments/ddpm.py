"""DDPM: denoising diffusion probabilistic models (Ho, Jain & Abbeel 2020, arXiv:2006.11239).

    python -m experiments.ddpm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.ddpm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.ddpm --preset cifar10           # the paper's run, for accelerators

Target of the cifar10 preset: FID 3.17 with 50,000 samples and the fixed large variance (paper, table 1). The paper
trained 800,000 steps of 128 images with a 35.7 M parameter U-Net: 10.6 hours on a TPU v3-8.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.unet import UNet
    from jgen.schedules import Schedule
    from jgen.types import Params, Predict


@dataclass(frozen=True)
class Sampling:
    sampler: Literal["ddpm", "ddim"] = "ddim"
    """ddpm is ancestral sampling."""
    steps: int = 50
    """Evenly spaced over the chain."""
    eta: float = 0.0
    """Noise of DDIM: 0 none, 1 as much as ancestral sampling."""
    variance: Literal["small", "large"] = "large"
    """Fixed variance of ancestral sampling: the posterior's or beta."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    channels: int = 32
    """Width of the U-Net's first level."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Width of each level as multiples; each but the last halves the resolution."""
    num_res_blocks: int = 1
    attention: tuple[int, ...] = (2,)
    """Levels with attention, as downsampling factors."""
    head_channels: int = 64
    """Channels of an attention head; 0 for a single head."""
    dropout: float = 0.0
    schedule: Literal["linear", "cosine"] = "linear"
    diffusion_steps: int = 1000
    prediction: Literal["eps", "x0", "v"] = "eps"
    """What the network predicts."""
    conditional: bool = False
    """Give the network the class."""
    learning_rate: float = 2e-3
    """Of Adam, reached by a linear warm-up."""
    warmup: int = 100
    """Steps of it."""
    final_learning_rate: float = 0.05
    """Share of the learning rate that a cosine falls to by the last step; 1 keeps it constant, as the paper does."""
    ema: float = 0.995
    """Decay of the weights' moving average, reached as (1 + step) / (10 + step) grows."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1100, save_every=220, sample_every=220),
        channel_mult=(1, 2, 2),
        attention=(4,),
        learning_rate=1e-3,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=800_000, log_every=100, save_every=10_000, sample_every=10_000),
        sampling=Sampling("ddpm", steps=1000),
        channels=128,
        channel_mult=(1, 2, 2, 2),
        num_res_blocks=2,
        head_channels=0,
        dropout=0.1,
        learning_rate=2e-4,
        warmup=5000,
        final_learning_rate=1.0,
        ema=0.9999,
    ),
}


def schedule(config: Config) -> "Schedule":
    """The noise schedule of the forward process."""
    from jgen import schedules

    return {"linear": schedules.linear, "cosine": schedules.cosine}[config.schedule](config.diffusion_steps)


def network(config: Config) -> "UNet":
    """The U-Net, unconditional unless `config.conditional`."""
    import jax.numpy as jnp

    from jgen.data import classes_of
    from jgen.models.unet import UNet

    return UNet(
        channels=config.channels,
        out_channels=config.data.shape[-1],
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        attention_resolutions=config.attention,
        num_classes=classes_of(config.data, config.conditional),
        head_channels=config.head_channels or None,
        dropout=config.dropout,
        # With a group a channel, normalisation would cancel what the time embedding adds.
        groups=min(32, config.channels // 4),
        dtype=jnp.dtype(config.train.dtype),
        remat=config.train.remat,
    )


def predictor(config: Config, params: "Params", label: object = None) -> "Predict":
    """(x_t, t) -> the clean image within [-1, 1]: what every discrete-time sampler takes."""
    from jgen import samplers
    from jgen.objectives import diffusion

    net = network(config)

    def apply(x, t):
        return net.apply({"params": params["net"]}, x, t, label)

    return samplers.clip(diffusion.predictor(apply, schedule(config), config.prediction))


def loss_by_time(config: Config, apply):
    """The evaluation of a run: its loss at ten times of the chain, and their mean."""
    import jax
    import jax.numpy as jnp

    from jgen.objectives import diffusion

    chain = schedule(config)
    times = jnp.linspace(0, len(chain) - 1, 10).round().astype(jnp.int32)

    @jax.jit
    def losses(params, key, batch):
        label = batch["label"] if config.conditional else None

        def net(x, t):
            return apply(params["net"], x, t, label)

        return diffusion.loss_by_time(net, chain, batch["image"], key, times, config.prediction)

    def evaluate(params, extra, key, batches, count):
        total = sum(losses(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count
        return {"loss (mean of the rows below)": total.mean(), **{f"loss at t={t}": v for t, v in zip(times, total)}}

    return evaluate


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp
    import optax

    from jgen import samplers
    from jgen.data import classes_of, resolve
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import diffusion
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    config = replace(config, data=resolve(config.data))
    classes, shape = classes_of(config.data, config.conditional), config.data.shape
    chain, net = schedule(config), network(config)

    def apply(params, x, t, label, **kwargs):
        return net.apply({"params": params}, x, t, label, **kwargs)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if config.conditional else None
        return {"net": net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label)["params"]}, {}

    def sample(params, extra, keys, options: Sampling):
        label = samplers.class_labels(keys, options.label, classes)
        x, predict = samplers.noise(keys, shape), predictor(config, params, label)
        if options.sampler == "ddim":
            return samplers.ddim(predict, chain, x, keys, timesteps=options.steps, eta=options.eta)
        return samplers.ancestral(predict, chain, x, keys, timesteps=options.steps, variance=options.variance)

    learning_rate = warmup_cosine(config.learning_rate, config.train.steps, config.warmup, config.final_learning_rate)
    objective = dict(schedule=chain, prediction=config.prediction, conditional=config.conditional)
    stage = Stage(
        name="ddpm",
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", diffusion.simple(apply, **objective))],
        optimizers={"net": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))},
        ema={"net": ramped(config.ema)},
        supports=frozenset(("dtype", "remat")),
        sample=sample,
        options=config.sampling,
        validate=diffusion.simple(apply, **objective, train=False),
        evaluate=loss_by_time(config, apply),
    )
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
