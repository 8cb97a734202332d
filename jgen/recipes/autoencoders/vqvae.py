"""The two stages of a VQ-VAE: the autoencoder, and the PixelCNN priors over its codes."""

import functools
from dataclasses import replace

import optax

from jgen.config import DataConfig, TrainConfig
from jgen.config.autoencoder import CodePriorConfig, CodeSampling, VQVAEConfig
from jgen.errors import UserError
from jgen.models.pixelcnn import GatedPixelCNN
from jgen.nn.precision import in_dtype
from jgen.objectives import vqvae
from jgen.objectives.likelihood import categorical
from jgen.recipes.autoencoders.vqvae_model import Model
from jgen.recipes.common import clipped, mean_metrics
from jgen.train import Phase
from jgen.train.rates import ramped, rated, rated_adam, warmup_cosine
from jgen.train.stage import Stage
from jgen.types import Array, LossFn, PyTree


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
        evaluate=mean_metrics(loss, objective(model, train=False)),
        begin=model.begin,
    )


def stages(
    config: VQVAEConfig, prior: CodePriorConfig, data: DataConfig, train: TrainConfig, sampling: CodeSampling
) -> list[Stage]:
    """The autoencoder, then the priors over the codes that it makes."""
    model = Model(config, prior, data, train.dtype)
    return [autoencoder_stage(model, data, train), prior_stage(model, prior, data, train, sampling)]
