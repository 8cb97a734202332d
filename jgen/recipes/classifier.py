"""Classifiers of images, clean or noisy: network, objective, evaluation, and their stage of training."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen.config import ChainConfig, DataConfig, OptimizerConfig, TrainConfig
from jgen.config.classifier import ClassifierConfig
from jgen.errors import UserError
from jgen.models.cnn import CNN
from jgen.models.cnn import GROUPS as CNN_GROUPS
from jgen.models.unet import Classifier
from jgen.nn.norm import groups_of
from jgen.nn.precision import in_dtype
from jgen.objectives import diffusion
from jgen.recipes.common import adam, mean_over
from jgen.recipes.diffusion.model import noise_chain
from jgen.schedules import Schedule
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree

Logits = Callable[..., Array]
"""(weights, x [B, H, W, C], t [B] or None, train=, rngs=) -> [B, classes]."""


def check_widths(channels: Sequence[int], option: str = "channels") -> None:
    """Raises UserError where a network of these widths would have no level, or groups of channels that do not fit."""
    if not channels or any(width % CNN_GROUPS for width in channels):
        raise UserError(f"{option}={channels}: must have a width for each level, multiples of {CNN_GROUPS}")


def network(config: ClassifierConfig, data: DataConfig, dtype: str = "float32", remat: bool = False) -> CNN | Classifier:
    """The network, whose layers compute in a type; ADM's recomputes its blocks in the backward pass where remat is set.

    Raises UserError for ADM's without noise, or of widths that it can't have.
    """
    if config.network == "cnn":
        check_widths(config.channels)
        return in_dtype(CNN(data.num_classes, config.channels, config.stride, config.noisy, config.dropout), dtype)
    if not config.noisy:
        raise UserError("network=adm: ADM's classifier takes the noise level of its images; say --noisy")
    width = config.channels[0] if config.channels else 0
    if not width or width % groups_of(width) or any(each % width for each in config.channels):
        raise UserError(
            f"channels={config.channels}: of adm, all must be multiples of the first, and that one of {groups_of(width)}"
        )
    return Classifier(
        channels=width,
        out_channels=data.num_classes,
        num_res_blocks=config.depth,
        channel_mult=tuple(each / width for each in config.channels),
        attention_resolutions=config.attention,
        head_channels=64 if width % 64 == 0 else width,
        scale_shift_norm=True,
        resblock_updown=True,
        dropout=config.dropout,
        groups=groups_of(width),
        dtype=jnp.dtype(dtype),
        remat=remat,
    )


def logits_of(config: ClassifierConfig, data: DataConfig, dtype: str = "float32", remat: bool = False) -> Logits:
    """The network's logits as a function of its weights."""
    net = network(config, data, dtype, remat)

    def logits(params: PyTree, x: Array, t: Array | None = None, train: bool = False, **rngs: Any) -> Array:
        found: Any = net.apply({"params": params}, x, t, train=train, **rngs)
        return found[1] if config.network == "cnn" else found

    return logits


def evaluation(classify: Logits, chain: Schedule | None) -> Evaluate:
    """Accuracy and cross-entropy on held-out images; of a noisy classifier, at times 0, 1/4, 1/2 and 3/4 of the chain."""
    times = [None] if chain is None else [len(chain) * i // 4 for i in range(4)]

    def measure(params: Params, key: Key, batch: Batch) -> Array:
        rows = []
        for time in times:
            x, t = batch["image"], None
            if time is not None and chain is not None:
                t = jnp.full((len(x),), time)
                x = diffusion.q_sample(chain, x, t, jax.random.normal(jax.random.fold_in(key, time), x.shape))
            logits = classify(params["net"], x, t)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"])
            rows.append([jnp.mean(jnp.argmax(logits, -1) == batch["label"]), jnp.mean(loss)])
        return jnp.array(rows)

    mean = mean_over(measure)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Array]:
        names = [f" at t={time}" if time is not None else "" for time in times]
        rows = zip(names, mean(params, key, batches, count))
        return {f"{kind}{name}": v for name, row in rows for kind, v in zip(("accuracy", "cross_entropy"), row)}

    return evaluate


def moved(key: Key, x: Array, reach: int) -> Array:
    """Images [B, H, W, C], each moved by up to `reach` pixels; border pixels are repeated."""
    padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
    corners = jax.random.randint(key, (len(x), 2), 0, 2 * reach + 1)
    return jax.vmap(lambda p, c: jax.lax.dynamic_slice(p, (c[0], c[1], 0), x.shape[1:]))(padded, corners)


def objective(
    config: ClassifierConfig, classify: Logits, chain: Schedule | None, classes: int, player: str, train: bool
) -> LossFn:
    """Cross-entropy of images, moved a little in training, or of noisy ones with their times along a chain."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        move_key, time_key, noise_key, dropout_key = jax.random.split(key, 4)
        x, t = batch["image"], None
        if train and config.shift:
            x = moved(move_key, x, config.shift)
        if chain is not None:
            t = jax.random.randint(time_key, (len(x),), 0, len(chain))
            x = diffusion.q_sample(chain, x, t, jax.random.normal(noise_key, x.shape))
        logits = classify(params[player], x, t, train, rngs={"dropout": dropout_key})
        target = jax.nn.one_hot(batch["label"], classes)
        if train:
            target = optax.smooth_labels(target, config.smoothing)
        value = jnp.mean(optax.softmax_cross_entropy(logits, target))
        return value, (extra, {"accuracy": jnp.mean(jnp.argmax(logits, -1) == batch["label"])})

    return loss


def stage(
    config: ClassifierConfig, chain: ChainConfig, optimizer_config: OptimizerConfig, data: DataConfig, train: TrainConfig,
    player: str = "net",
) -> Stage:  # fmt: skip
    """The training of a classifier. Raises UserError for a set without labels."""
    if not data.num_classes:
        raise UserError(f"data.name={data.name}: has no labels to learn")
    if chain.rescale_timesteps and (config.noisy or player == "net"):
        raise UserError("rescale_timesteps=True: a classifier takes the steps as they are")
    net, classify = network(config, data), logits_of(config, data)
    trained = logits_of(config, data, train.dtype, train.remat)
    noise = noise_chain(chain) if config.noisy else None

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        return {player: net.init(key, jnp.zeros((1, *data.shape)), jnp.zeros((1,)))["params"]}, {}

    return Stage(
        name="classifier",
        data=data,
        train=train,
        init=init,
        phases=[Phase(player, objective(config, trained, noise, data.num_classes, player, train=True))],
        optimizers={player: adam(optimizer_config, train.steps, config.weight_decay)},
        ema={player: ramped(optimizer_config.ema)},
        supports=frozenset(("dtype", "remat") if config.network == "adm" else ("dtype",)),
        validate=objective(config, classify, noise, data.num_classes, player, train=False),
        evaluate=evaluation(classify, noise),
    )
