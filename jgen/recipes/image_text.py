"""The training of a model of images and captions, and its measure: how often one finds the other among held-out pairs."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.image_text import ImageTextConfig
from jgen.data.captions import encoded
from jgen.errors import UserError
from jgen.models.image_text import ImageText
from jgen.objectives.contrastive import MAX_SCALE, info_nce, recall, similarities
from jgen.recipes.classifier import check_widths, moved
from jgen.recipes.common import adam_rate, clipped
from jgen.train import Phase
from jgen.train.rates import ramped, rated
from jgen.train.stage import Evaluate, Picture, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

SHOWN = 8
"""Captions of the picture, each with the images nearest to it."""


def network(config: ImageTextConfig) -> ImageText:
    """The network. Raises UserError for widths that it can't have."""
    check_widths(config.channels)
    if config.text_width % 4:
        raise UserError(f"text_width={config.text_width}: must be a multiple of 4, the heads of its attention")
    return ImageText(config.features, config.channels, config.stride, config.text_width, config.dropout)


def capped(limit: float) -> optax.GradientTransformation:
    """Holds the scale at most at `limit` after every update, as the authors do."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        most = jnp.log(limit) - params["log_scale"]
        return {**updates, "log_scale": jnp.minimum(updates["log_scale"], most)}, state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def optimizer(config: OptimizerConfig, weight_decay: float, steps: int) -> optax.GradientTransformation:
    """AdamW that leaves gains, biases and the scale undecayed, and the scale capped."""
    matrices = lambda params: jax.tree.map(lambda p: p.ndim > 1, params)  # noqa: E731
    rate = adam_rate(config, steps)
    adamw = optax.adamw(rate, config.beta_1, config.beta_2, weight_decay=weight_decay, mask=matrices)
    return rated(clipped(optax.chain(adamw, capped(MAX_SCALE)), config.clip), rate)


def objective(net: ImageText, shift: int, train: bool) -> LossFn:
    """CLIP's loss of a batch, whose images are moved a little in training."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        move_key, dropout_key = jax.random.split(key)
        images = moved(move_key, batch["image"], shift) if train and shift else batch["image"]
        found: Any = net.apply({"params": params["net"]}, images, batch["caption"], train, rngs={"dropout": dropout_key})
        ours, theirs, scale = found
        right = recall(similarities(ours, theirs), 1)
        return info_nce(ours, theirs, scale), (extra, {"accuracy": right, "scale": scale})

    return loss


def retrieval(net: ImageText) -> Evaluate:
    """Recall at 1 and 5 among all held-out pairs of both directions, and their chance levels."""
    embed: Any = jax.jit(lambda params, batch: net.apply({"params": params["net"]}, batch["image"], batch["caption"]))

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Array]:
        found = [embed(params, next(batches))[:2] for _ in range(count)]
        table = similarities(*(jnp.concatenate(each) for each in zip(*found)))
        measured = {}
        for k in (1, 5):
            measured[f"image_to_text_R@{k}"] = recall(table, k)
            measured[f"text_to_image_R@{k}"] = recall(table.T, k)
            measured[f"chance_R@{k}"] = jnp.asarray(min(k / len(table), 1.0))
        return measured

    return evaluate


def nearest_images(net: ImageText) -> Picture:
    """A row for each of eight held-out captions: the image it belongs to, then the seven of the batch that are nearest."""

    def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        found: Any = net.apply({"params": params["net"]}, batch["image"], batch["caption"])
        table = similarities(found[1][:SHOWN], found[0])
        nearest = jnp.argsort(-table, 1)[:, : SHOWN - 1]
        rows = jnp.concatenate([jnp.arange(len(nearest))[:, None], nearest], 1)
        return batch["image"][rows.reshape(-1)]

    return picture


def stage(config: ImageTextConfig, optimizer_config: OptimizerConfig, data: DataConfig, train: TrainConfig) -> Stage:
    """The training. Raises UserError for a set without captions."""
    net, caption = network(config), encoded("", data, f"data.name={data.name}")

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        made = net.init(key, jnp.zeros((1, *data.shape)), jnp.asarray(caption)[None])
        return {"net": made["params"]}, {}

    return Stage(
        name="image_text",
        data=data,
        train=train,
        init=init,
        phases=[Phase("net", objective(net, config.shift, train=True))],
        optimizers={"net": optimizer(optimizer_config, config.weight_decay, train.steps)},
        ema={"net": ramped(optimizer_config.ema)},
        pictures={"nearest": nearest_images(net)},
        validate=objective(net, 0, train=False),
        evaluate=retrieval(net),
        example_inputs={"caption": caption},
    )
