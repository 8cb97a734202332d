"""The stage of training of a diffusion model of images."""

from collections.abc import Callable
from typing import Any, Protocol

import flax.linen as nn
import jax.numpy as jnp

from jgen.config import ChainConfig, DataConfig, DiffusionSampling, OptimizerConfig, TrainConfig
from jgen.recipes.common import adam
from jgen.recipes.diffusion.editing import image_edits
from jgen.recipes.diffusion.model import DiffusionModel, Network
from jgen.recipes.diffusion.noise_space import image_noise
from jgen.recipes.diffusion.noisy_classifier import external_params
from jgen.recipes.diffusion.sampling import LogProbOf, sampler
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Condition, Extra, Key, LossFn, Params, PyTree


class Apply(Protocol):
    """A network in training: (its weights, x, t or noise level [B], condition, rngs=, train=) -> raw output."""

    def __call__(self, weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array: ...


def apply_fn(net: nn.Module) -> Apply:
    """A network of images, labels and augmentations as a function of its weights and a `Condition`."""

    def apply(weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array:
        more = {} if condition.augment is None else {"augment": condition.augment}
        found: Any = net.apply({"params": weights}, x, t, condition.label, **more, **how)
        return found

    return apply


def rescaled(apply: Apply, chain: ChainConfig) -> Apply:
    """A network of a chain, given its steps as 0 to 1000 where the chain's settings say so."""
    if not chain.rescale_timesteps:
        return apply

    def scaled(weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array:
        return apply(weights, x, t * (1000 / chain.diffusion_steps), condition, **how)

    return scaled


def network_fn(apply: Apply, player: str = "net") -> Network:
    """A network in sampling, as a function of all players' weights."""
    return lambda params, x, t, condition: apply(params[player], x, t, condition)


def init_fn(
    net: nn.Module, shape: tuple[int, ...], labelled: bool, augment: int = 0, extra: Extra | None = None
) -> Callable[[Key, Batch], tuple[Params, Extra]]:
    """A stage's initialisation: fresh weights of a network of images of a shape, with labels and augmentations or not."""

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        label = jnp.zeros((1,), jnp.int32) if labelled else None
        more: dict[str, Any] = {"augment": jnp.zeros((1, augment))} if augment else {}
        made = net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label, **more)
        return {"net": made["params"]}, extra or {}

    return init


def diffusion_stage(
    name: str,
    data: DataConfig,
    train: TrainConfig,
    optimizer: OptimizerConfig,
    sampling: DiffusionSampling,
    *,
    model: DiffusionModel,
    init: Callable[[Key, Batch], tuple[Params, Extra]],
    objective: Callable[[bool], LossFn],
    evaluate: Evaluate,
    supports: tuple[str, ...] = ("dtype", "remat"),
    log_prob: LogProbOf | None = None,
) -> Stage:
    """A stage of a model of images; objective(train) is its loss, with or without dropout and left-out labels."""
    return Stage(
        name=name,
        data=data,
        train=train,
        init=init,
        phases=[Phase("net", objective(True))],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        supports=frozenset(supports),
        sample=sampler(model, data, log_prob),
        on_request=image_edits(model, data, sampling, log_prob),
        noise=image_noise(model, data, log_prob),
        options=sampling,
        external_params=external_params,
        validate=objective(False),
        evaluate=evaluate,
    )
