"""The two stages of a VQ-VAE: the autoencoder, and the PixelCNN priors over its codes."""

import functools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax

from jgen.bits import bits_per_dim
from jgen.config import DataConfig, TrainConfig
from jgen.config.autoencoder import CodePriorConfig, CodeSampling, VQVAEConfig
from jgen.errors import UserError
from jgen.models.pixelcnn import GatedPixelCNN
from jgen.nn.precision import in_dtype
from jgen.objectives import vqvae
from jgen.objectives.likelihood import categorical
from jgen.recipes.autoencoders.vqvae_model import Model
from jgen.recipes.common import both, clipped, mean_metrics
from jgen.train import Phase
from jgen.train.rates import ramped, rated, rated_adam, warmup_cosine
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, PyTree


def objective(model: Model, train: bool) -> LossFn:
    """The loss of the autoencoder."""
    config = model.config
    return vqvae.vqvae(model.apply, beta=config.beta, ema=config.ema, decay=config.decay, train=train)


def prior_objective(model: Model) -> LossFn:
    """The loss of the priors, all levels at once."""

    def apply(net: GatedPixelCNN, params: PyTree, codes: Array, label: Array | None, beneath: Array | None = None) -> Array:
        return net.apply({"params": params}, codes, label, beneath=beneath)  # pyright: ignore[reportReturnType]

    nets = [functools.partial(apply, in_dtype(net, model.dtype)) for net in model.priors]
    law = categorical(model.config.codes, codes=True)
    return vqvae.prior(nets, model.codes, model.coarser, law, conditional=model.classes > 0)


def two_part_bits(model: Model) -> Evaluate:
    """Bits/dim of 8-bit images in two parts: their codes by the priors, then the errors of the reconstructions.

    The errors' scale is the best of LOG_SCALES for all the images, which tell it by five bits more: too few to count.
    """
    codes = prior_objective(model)

    @jax.jit
    def nats(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        found = codes(params, extra, key, batch)[1][1]
        first = sum(math.prod(grid) * found[f"nats_per_code_{i}"] for i, grid in enumerate(model.grids))
        images, _ = model.apply(params["net"], batch["image"], model.vectors(params, extra))
        return first + vqvae.residual(images, batch["image"])

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        found = [nats(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        bits = bits_per_dim(float(np.min(np.mean(found, 0))), model.shape, "discrete", bound=True)
        return {bits.name: bits.bits}

    return evaluate


def autoencoder_stage(model: Model, data: DataConfig, train: TrainConfig) -> Stage:
    """The training of the autoencoder. Raises UserError for codebooks that follow parts of a batch."""
    config = model.config
    if config.ema and train.accumulate > 1:
        raise UserError(f"train.accumulate={train.accumulate}: a codebook that follows its inputs needs the whole batch")
    rate = warmup_cosine(config.learning_rate, train.steps, 100, 0.05)
    return Stage(
        name="autoencoder",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", objective(model, train=True))],
        optimizers={"net": rated_adam(rate)},
        supports=frozenset(("dtype",)),
        pictures={"reconstructions": model.reconstructions},
        validate=objective(model, train=False),
        evaluate=mean_metrics(objective(model, train=False)),
    )


def prior_stage(model: Model, config: CodePriorConfig, data: DataConfig, train: TrainConfig, sampling: CodeSampling) -> Stage:
    """The training of the priors; train: that of the autoencoder, whose steps are replaced."""
    loss = prior_objective(model)
    measures = mean_metrics(loss, objective(model, train=False))
    rate = warmup_cosine(config.prior_learning_rate, config.prior_steps, 100, 0.02)
    return Stage(
        name="prior",
        data=data,
        train=replace(train, steps=config.prior_steps),
        init=model.init_prior,
        phases=[Phase("prior", loss)],
        optimizers={"prior": rated(clipped(optax.adam(rate), 1.0), rate)},
        ema={"prior": ramped(0.998)},
        supports=frozenset(("dtype",)),
        sample=model.sample,
        options=sampling,
        validate=loss,
        # Noise in the grey levels leaves no 8-bit values to be likely.
        evaluate=measures if data.dequantize else both(measures, two_part_bits(model)),
        begin=model.begin,
    )


def stages(
    config: VQVAEConfig, prior: CodePriorConfig, data: DataConfig, train: TrainConfig, sampling: CodeSampling
) -> list[Stage]:
    """The autoencoder, then the priors over the codes that it makes."""
    model = Model(config, prior, data, train.dtype)
    return [autoencoder_stage(model, data, train), prior_stage(model, prior, data, train, sampling)]
