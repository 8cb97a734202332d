"""What the diffusion experiments share: the knobs of a U-Net, of a chain and of training, and what is built by them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jgen.config import DataConfig, MeshConfig, TrainConfig, check_at_least, check_share

if TYPE_CHECKING:
    from jgen.models.edm import SongUNet
    from jgen.models.unet import UNet
    from jgen.schedules import Schedule


@dataclass(frozen=True)
class Knobs:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    channels: int = 32
    """Width of the U-Net's first level."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Width of each level as multiples; each but the last halves the resolution."""
    num_res_blocks: int = 1
    attention: tuple[int, ...] = (2,)
    """Levels with attention, as downsampling factors."""
    head_channels: int = 64
    """Channels of an attention head; 0 for a single head."""
    scale_shift_norm: bool = False
    """Of ADM's U-Net: the time (and class) scales and shifts the features, rather than being added to them."""
    resblock_updown: bool = False
    """Of ADM's U-Net: resample inside residual blocks rather than by a convolution of its own."""
    dropout: float = 0.0
    conditional: bool = False
    """Give the network the class."""
    drop_label: float = 0.0
    """Share of the labels left out in training, for classifier-free guidance."""
    learning_rate: float = 2e-3
    """Of Adam, reached by a linear warm-up."""
    warmup: int = 100
    """Steps of it."""
    final_learning_rate: float = 0.05
    """Share of the learning rate that a cosine falls to by the last step; 1 keeps it constant, as the papers do."""
    clip: float = 1.0
    """Greatest norm of the gradient of all weights, scaled down where above; 0 leaves it as it is."""
    ema: float = 0.995
    """Decay of the weights' moving average, reached as (1 + step) / (10 + step) grows."""


ChainName = Literal["linear", "cosine", "scaled_linear"]
"""How the noise grows along a chain (`jgen.schedules`)."""
Prediction = Literal["eps", "x0", "v"]


@dataclass(frozen=True)
class ChainKnobs(Knobs):
    """Of a model with a discrete chain besides."""

    schedule: ChainName = "linear"
    """How the noise grows along the chain."""
    diffusion_steps: int = 1000
    prediction: Prediction = "eps"
    """What the network predicts."""


FASHION_MNIST: dict[str, Any] = dict(
    data=DataConfig("fashion_mnist", batch_size=64),
    train=TrainConfig(steps=1100, save_every=220, sample_every=220),
    channel_mult=(1, 2, 2),
    attention=(4,),
    learning_rate=1e-3,
)
"""Knobs of 28x28 presets: about 25 minutes on 2 CPU cores."""

CIFAR10: dict[str, Any] = dict(
    data=DataConfig("cifar10", batch_size=128, flip=True),
    channels=128,
    channel_mult=(1, 2, 2, 2),
    learning_rate=2e-4,
    warmup=5000,
    final_learning_rate=1.0,
    ema=0.9999,
)
"""Knobs of DDPM's run and of those that took them over."""


def paper_steps(steps: int) -> TrainConfig:
    """Training as long as a paper's, with a record every hundred steps."""
    return TrainConfig(steps=steps, log_every=100, save_every=10_000, sample_every=10_000)


def null_label(config: Knobs) -> int:
    """The label that stands for none: one above the classes."""
    return config.data.num_classes


def classes(config: Knobs) -> int:
    """Labels the network knows: the classes, and with drop_label one for none. 0 for an unconditional one."""
    from jgen.data import classes_of
    from jgen.errors import UserError

    if config.drop_label and not config.conditional:
        raise UserError(f"drop_label={config.drop_label}: only a conditional model has labels to leave out")
    check_share(below=True, drop_label=config.drop_label)
    return classes_of(config.data, config.conditional) + (config.drop_label > 0)


def check_network(config: Knobs) -> None:
    """Raises UserError for sizes that no U-Net has."""
    from jgen.errors import UserError

    check_at_least(1, channels=config.channels, num_res_blocks=config.num_res_blocks)
    if not config.channel_mult or min(config.channel_mult) < 1:
        raise UserError(f"channel_mult={config.channel_mult}: must have a number of 1 or more for each level")
    check_share(below=True, dropout=config.dropout)


def unet(config: Knobs, channels: int, dtype: str, remat: bool, **more: Any) -> "UNet":
    """ADM's U-Net of so many output channels, unconditional unless `config.conditional`."""
    import jax.numpy as jnp

    from jgen.models.unet import UNet
    from jgen.nn.norm import groups_of

    check_network(config)
    return UNet(
        channels=config.channels,
        out_channels=channels,
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        attention_resolutions=config.attention,
        num_classes=classes(config),
        head_channels=config.head_channels or None,
        scale_shift_norm=config.scale_shift_norm,
        resblock_updown=config.resblock_updown,
        dropout=config.dropout,
        # With a group a channel, normalisation would cancel what the time embedding adds.
        groups=groups_of(config.channels),
        dtype=jnp.dtype(dtype),
        remat=remat,
        **more,
    )


def song_knobs(config: Knobs, attention: Sequence[int]) -> dict[str, Any]:
    """Arguments that the networks of `jgen.models.edm` share; attention: sides in pixels."""
    import jax.numpy as jnp

    check_network(config)
    return dict(
        out_channels=config.data.shape[-1],
        channels=config.channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_res_blocks,
        attention_resolutions=tuple(attention),
        dropout=config.dropout,
        classes=classes(config) and config.data.num_classes,  # these networks take no class as zeros, not as one more
        dtype=jnp.dtype(config.train.dtype),
    )


def song_unet(config: Knobs, kind: Literal["ddpmpp", "ncsnpp"], attention: Sequence[int]) -> "SongUNet":
    """DDPM++ or NCSN++ (Song et al. 2021)."""
    from jgen.models.edm import SongUNet

    fourier = dict(embedding="fourier", channel_mult_noise=2, encoder="residual", taps=(1, 3, 3, 1))
    return SongUNet(**song_knobs(config, attention), **(fourier if kind == "ncsnpp" else {}))


def optimizer(config: Knobs, steps: int) -> Any:
    """Adam with clipped gradients, its rate warmed up and then falling along a cosine. Raises UserError for clip below 0."""
    import optax

    from jgen.errors import UserError
    from jgen.train.rates import warmup_cosine

    rate = warmup_cosine(config.learning_rate, steps, config.warmup, config.final_learning_rate)
    if config.clip < 0:
        raise UserError(f"clip={config.clip}: must be a norm above 0, or 0 for none")
    clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
    return optax.chain(clip, optax.adam(rate))


def mean_loss(loss: Any) -> Any:
    """The evaluation that is a loss, averaged over held-out batches; the weights are arguments of its program."""
    import jax

    run = jax.jit(lambda params, extra, key, batch: loss(params, extra, key, batch)[0])

    def evaluate(params, extra, key, batches, count):
        return {"loss": sum(run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count}

    return evaluate


def both(first: Any, second: Any) -> Any:
    """Two evaluations, of the same images."""

    def evaluate(params, extra, key, batches, count):
        kept = [next(batches) for _ in range(count)]
        return {**first(params, extra, key, iter(kept), count), **second(params, extra, key, iter(kept), count)}

    return evaluate


def schedule(config: Any) -> "Schedule":
    """The noise schedule that a config's `schedule` and `diffusion_steps` name."""
    from jgen import schedules

    check_at_least(2, diffusion_steps=config.diffusion_steps)
    return schedules.named(config.schedule, config.diffusion_steps)
