"""The network of a latent prior: a U-Net or a DiT, with a class, or a caption by an encoder of its own."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config import DataConfig, TrainConfig, UNetConfig
from jgen.config.latent import PriorConfig
from jgen.data import open_source
from jgen.data.captions import minilm
from jgen.errors import UserError
from jgen.models.dit import DiT
from jgen.models.text import FeatureEncoder, WordEncoder
from jgen.recipes.diffusion.networks import unet
from jgen.recipes.diffusion.stage import Apply
from jgen.types import Array, Condition, Key, PyTree


class PriorNetwork(NamedTuple):
    """The network as functions."""

    apply: Apply
    init: Callable[[Key, Array, Array | None], PyTree]
    """(key, latents [1, h, w, C], a caption [1, ...] or None) -> weights."""


def prior_network(
    config: PriorConfig, network: UNetConfig, data: DataConfig, train: TrainConfig, latent_channels: int
) -> PriorNetwork:
    """The prior of latents of so many channels. Raises UserError for classes that the set does not have."""
    if config.condition == "class" and not data.num_classes:
        raise UserError(f"condition=class: {data.name} has no labels")
    channels = (1 + config.learn_variance) * latent_channels
    return (_captioned if config.condition == "text" else _of_classes)(config, network, data, train, channels)


def _backbone(config: PriorConfig, network: UNetConfig, train: TrainConfig, channels: int, classes: int, **more: Any) -> Any:
    if config.prior == "dit":
        shape = channels, config.width, config.depth, 4 if config.width < 512 else 16, config.patch, classes
        return DiT(*shape, dtype=jnp.dtype(train.dtype), remat=train.remat)
    return unet(network, train, channels, (classes + (config.drop_label > 0)) if classes else 0, **more)


def _of_classes(config: PriorConfig, network: UNetConfig, data: DataConfig, train: TrainConfig, channels: int) -> PriorNetwork:
    classes = data.num_classes if config.condition == "class" else 0
    net = _backbone(config, network, train, channels, classes)

    def apply(weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array:
        return net.apply({"params": weights["net"]}, x, t, condition.label, **how)

    def init(key: Key, latents: Array, caption: Array | None) -> PyTree:
        label = jnp.zeros((1,), jnp.int32) if classes else None
        return {"net": net.init(jax.random.split(key)[0], latents, jnp.zeros((1,)), label)["params"]}

    return PriorNetwork(apply, init)


def _captioned(config: PriorConfig, network: UNetConfig, data: DataConfig, train: TrainConfig, channels: int) -> PriorNetwork:
    encoder = (WordEncoder if data.captions == "bytes" else FeatureEncoder)(config.text_width)
    net = _backbone(config, network, train, channels, 0, transformer_depth=1, num_heads=4, pool_context=True)

    def apply(weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array:
        context = encoder.apply({"params": weights["text"]}, condition.caption)
        return net.apply({"params": weights["net"]}, x, t, context=context, **how)

    def init(key: Key, latents: Array, caption: Array | None) -> PyTree:
        keys = jax.random.split(key)
        encoded = encoder.init(keys[1], caption)
        context = encoder.apply(encoded, caption)
        made = net.init(keys[0], latents, jnp.zeros((1,)), context=context)["params"]
        return {"net": made, "text": encoded["params"]}

    return PriorNetwork(apply, init)


def captions(data: DataConfig, seed: int, prompt: str = "") -> np.ndarray:
    """The prompt, or the captions of 64 held-out images: uint8 [N, L], or float32 [N, L, D] where they are features.

    Raises UserError for a set without captions, and a prompt that does not fit.
    """
    source = open_source(replace(data, split="test", limit=0), seed)
    first = source[0]
    if "caption" not in first:
        raise UserError(f"condition=text: {data.name} has no captions")
    if not prompt:
        return np.stack([source[i]["caption"] for i in range(64)])
    if data.captions == "minilm":
        return minilm()(prompt)[None]
    length, text = len(first["caption"]), prompt.encode("utf-8")
    if len(text) > length:
        raise UserError(f"prompt: {len(text)} bytes long; captions of {data.name} have at most {length}")
    return np.frombuffer(text.ljust(length, b"\0"), np.uint8)[None]
