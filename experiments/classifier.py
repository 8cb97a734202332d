"""Classifier: the feature networks of jgen's own scores, and with --noisy the classifier of classifier guidance.

    python -m experiments.classifier                           # digits, 8x8: a minute on 2 CPU cores
    python -m experiments.classifier --preset fashion_mnist    # 28x28: at most 10 minutes on 2 CPU cores
    python -m experiments.classifier --preset glyphs           # the 62 letters and numerals, 32x32, in colour

A small residual network (He et al. 2015, arXiv:1512.03385). Target of the fashion_mnist preset: 92 % of the test set.
`python -m experiments.classifier evaluate` gives the accuracy, `python -m jgen.metrics export RUN` makes the weight
file of a feature network. --noisy trains on images at every noise level of DDPM's linear chain, and gives the network
the time (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.1): such a run guides any diffusion model of as large images, by
`sample --classifier RUN --classifier-scale 2`. --network adm is the paper's own, the descending half of its U-Net.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._diffusion import ChainName, schedule
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.cnn import CNN
    from jgen.models.unet import Classifier


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, save_every=500, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    network: Literal["cnn", "adm"] = "cnn"
    """A small residual network, or ADM's classifier of noisy images."""
    channels: tuple[int, ...] = (32, 64)
    """Width of each level; each but the first halves the resolution."""
    stride: int = 1
    """Of cnn's first convolution: 2 for images of 28 pixels and more."""
    depth: int = 2
    """Of adm: residual blocks a level."""
    attention: tuple[int, ...] = (2,)
    """Of adm: levels with attention, as downsampling factors."""
    dropout: float = 0.1
    """Of the features, before the last layer."""
    shift: int = 0
    """Move each image by up to so many pixels, at random."""
    smoothing: float = 0.0
    """Share of the label spread over all classes."""
    noisy: bool = False
    """Classify noisy images, given their times: for guidance."""
    schedule: ChainName = "linear"
    """Of a noisy classifier: the model's that it is to guide."""
    diffusion_steps: int = 1000
    """Of the chain that makes the noise."""
    learning_rate: float = 3e-3
    """Of AdamW at its peak; a cosine takes it to zero."""
    warmup: int = 200
    """Steps that lead up to it."""
    weight_decay: float = 0.02
    ema: float = 0.998
    """Decay of the weights' moving average, reached as (1 + step) / (10 + step) grows."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=128, flip=True),
        train=TrainConfig(steps=4400, log_every=10, save_every=1100, sample_every=0),
        channels=(32, 64, 96),
        stride=2,
        shift=1,
        dropout=0.2,
        smoothing=0.05,
        weight_decay=0.05,
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=128, resolution=32, channels=3),
        train=TrainConfig(steps=1600, log_every=10, save_every=400, sample_every=0),
        channels=(32, 64, 96),
        stride=2,
    ),
}


def network(config: Config) -> "CNN | Classifier":
    """The network. Raises UserError for ADM's without noise."""
    from jgen.errors import UserError
    from jgen.models.cnn import CNN
    from jgen.models.unet import Classifier
    from jgen.nn.norm import groups_of

    if config.network == "cnn":
        return CNN(config.data.num_classes, config.channels, config.stride, config.noisy, config.dropout)
    if not config.noisy:
        raise UserError("network=adm: ADM's classifier is told how noisy images are; say --noisy")
    width = config.channels[0]
    if width % groups_of(width) or any(each % width for each in config.channels):
        raise UserError(
            f"channels={config.channels}: of adm, all must be multiples of the first, and that one of {groups_of(width)}"
        )
    return Classifier(
        channels=width,
        out_channels=config.data.num_classes,
        num_res_blocks=config.depth,
        channel_mult=tuple(each / width for each in config.channels),
        attention_resolutions=config.attention,
        head_channels=64 if width % 64 == 0 else width,
        scale_shift_norm=True,
        resblock_updown=True,
        dropout=config.dropout,
        groups=groups_of(width),
    )


def logits_of(config: Config) -> Any:
    """(params, x [B, H, W, C], t [B] or None, train=, rngs=) -> logits [B, classes]."""
    net = network(config)

    def logits(params, x, t=None, train=False, **how):
        found = net.apply({"params": params}, x, t, train=train, **how)
        return found[1] if config.network == "cnn" else found

    return logits


def optimizer(config: Config) -> Any:
    """AdamW, its rate warmed up and then falling along a cosine."""
    import optax

    from jgen.train.rates import warmup_cosine

    rate = warmup_cosine(config.learning_rate, config.train.steps, config.warmup)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate, weight_decay=config.weight_decay))


def evaluation(config: Config):
    """Accuracy and cross-entropy on held-out images; of a noisy classifier, at times 0, 1/4, 1/2 and 3/4 of the chain."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.objectives import diffusion

    classify, chain = logits_of(config), schedule(config)
    times = [len(chain) * i // 4 for i in range(4)] if config.noisy else [None]

    @jax.jit
    def measure(params, key, batch):
        rows = []
        for time in times:
            x, t = batch["image"], None
            if time is not None:
                t = jnp.full((len(x),), time)
                x = diffusion.q_sample(chain, x, t, jax.random.normal(jax.random.fold_in(key, time), x.shape))
            logits = classify(params["net"], x, t)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            rows.append([jnp.mean(jnp.argmax(logits, -1) == batch["label"]), jnp.mean(loss)])
        return jnp.array(rows)

    def evaluate(params, extra, key, batches, count):
        total = sum(measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count
        names = [f" at t={time}" if time is not None else "" for time in times]
        return {f"{kind}{n}": v for n, row in zip(names, total) for kind, v in zip(("accuracy", "cross_entropy"), row)}

    return evaluate


def objective(config: Config, player: str = "net"):
    """train (bool) -> loss: cross-entropy of images, moved a little in training, or of noisy ones with their times."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.objectives import diffusion

    classify, chain, shape = logits_of(config), schedule(config), config.data.shape

    def moved(key, x):
        """Each image moved by up to `shift` pixels; its border pixels are repeated."""
        reach, (height, width) = config.shift, shape[:2]
        padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        corners = jax.random.randint(key, (len(x), 2), 0, 2 * reach + 1)
        return jax.vmap(lambda p, c: jax.lax.dynamic_slice(p, (c[0], c[1], 0), (height, width, shape[2])))(padded, corners)

    def loss(train):
        def fn(params, extra, key, batch):
            move_key, time_key, noise_key, dropout_key = jax.random.split(key, 4)
            x, t = batch["image"], None
            if train and config.shift:
                x = moved(move_key, x)
            if config.noisy:
                t = jax.random.randint(time_key, (len(x),), 0, len(chain))
                x = diffusion.q_sample(chain, x, t, jax.random.normal(noise_key, x.shape))
            logits = classify(params[player], x, t, train, rngs={"dropout": dropout_key})
            target = jax.nn.one_hot(batch["label"], config.data.num_classes)
            if train:
                target = optax.smooth_labels(target, config.smoothing)
            value = jnp.mean(optax.softmax_cross_entropy(logits, target))
            return value, (extra, {"accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["label"])})

        return fn

    return loss


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp

    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    if not config.data.num_classes:
        raise UserError(f"data.name={config.data.name}: has no labels to learn")
    net, shape, loss = network(config), config.data.shape, objective(config)

    def init(key):
        return {"net": net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)))["params"]}, {}

    stage = Stage(
        name="classifier",
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", loss(train=True))],
        optimizers={"net": optimizer(config)},
        ema={"net": ramped(config.ema)},
        validate=loss(train=False),
        evaluate=evaluation(config),
    )
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
