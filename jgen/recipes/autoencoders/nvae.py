"""NVAE: network, bound, sampler, pictures and training (Vahdat & Kautz 2020, arXiv:2007.03898)."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.config import DataConfig, TrainConfig
from jgen.config.nvae import AdamaxConfig, NVAEConfig, NVAELossConfig, NVAESampling
from jgen.errors import UserError
from jgen.models.nvae import NVAE, Draw, Group, check_sides, latent_shapes
from jgen.nn.precision import in_dtype
from jgen.objectives import likelihood as likelihoods
from jgen.objectives.likelihood import Likelihood
from jgen.objectives.nvae import Training, balance_factors, from_posteriors, from_priors, nvae, spectral_start
from jgen.objectives.nvae_decoders import mixture_decoder, normal_decoder
from jgen.objectives.vae import binarize
from jgen.recipes.autoencoders.vae import bound_in_bits
from jgen.recipes.common import mean_metrics, refuse_dequantized
from jgen.train import Phase
from jgen.train.rates import rated, warmup_cosine
from jgen.train.stage import Evaluate, Picture, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, Sample

FIXED = 1 << 30
"""Where the keys of images that are drawn to read statistics begin; those of nobody's samples."""


def law_of(config: NVAEConfig, channels: int) -> Likelihood:
    """The distribution of pixels that the network's outputs stand for."""
    if config.likelihood == "mixture":
        return mixture_decoder(config.mixtures, channels)
    return normal_decoder(channels) if config.likelihood == "gaussian" else likelihoods.bernoulli(channels)


class Model:
    """NVAE as functions of its weights. Raises UserError for images that it cannot halve, or data with noise added.

    dtype is that of calls with train=True; all others compute in float32.
    """

    def __init__(self, config: NVAEConfig, data: DataConfig, dtype: str = "float32"):
        height, width, channels = data.shape
        if height != width:
            raise UserError(f"image of {height}x{width}: NVAE takes squares")
        if config.likelihood != "gaussian":
            refuse_dequantized(data, f"{config.likelihood} is a likelihood of the 8-bit values themselves")
        self.config, self.law, self.dequantize = config, law_of(config, channels), data.dequantize
        self.net = NVAE(
            self.law.outputs, height, config.channels, config.latents, config.groups, config.image_blocks,
            config.image_cells, config.encoder_cells, config.decoder_cells, config.flows,
        )  # fmt: skip
        check_sides(self.net)
        self.trained = in_dtype(self.net, dtype)
        self.shapes, self.image = latent_shapes(self.net), (height, width, channels)
        self.prepare = binarize if config.likelihood == "bernoulli" else None

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        """Fresh weights, running statistics, the power method's vectors, and the count of updates."""
        made = self.net.init(key, jnp.zeros((2, *self.image)), lambda k, group: group.prior[0])
        spectral = spectral_start(jax.random.fold_in(key, 1), made["params"])
        state = {"net": made["batch_stats"], "spectral": spectral, "updates": jnp.zeros((), jnp.int32)}
        return {"net": made["params"]}, state

    def apply(self, params: Params, extra: Extra, x: Array, draw: Draw, train: bool) -> tuple[Array, list[Group], Extra]:
        """(the likelihood's outputs, the groups, the entries of extra that change) for images."""
        variables = {"params": params["net"], "batch_stats": extra["net"]}
        if not train:
            return *self.net.apply(variables, x, draw), {}  # pyright: ignore[reportReturnType]
        (outputs, groups), state = self.trained.apply(variables, x, draw, True, mutable=["batch_stats"])
        return outputs, groups, {"net": state["batch_stats"]}

    def generate(self, params: Params, extra: Extra, draw: Draw, count: int) -> Array:
        """The likelihood's outputs for latents that `draw` makes without images."""
        found: Any = self.net.apply({"params": params["net"], "batch_stats": extra["net"]}, draw, count, method="decode")
        return found[0]

    def images(self, outputs: Array, keys: Key, noise: bool) -> Array:
        """Images of the likelihood's outputs: their means, or draws."""
        if not noise:
            return self.law.mean(outputs)
        shape = (*self.image[:2], self.law.uniforms)
        return self.law.draw(outputs, jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, FIXED), shape))(keys))

    def reread(self, params: Params, extra: Extra, options: NVAESampling) -> Extra:
        """Extra whose statistics are read again from images at a temperature, as the authors' code does: by moving averages."""
        if options.statistics == "running":
            return extra

        def one(state: Any, i: Array) -> tuple[Any, None]:
            keys = samplers.image_keys(0, options.pass_size, FIXED + i * options.pass_size)
            draw = from_priors([samplers.noise(keys, shape, k) for k, shape in enumerate(self.shapes)], options.temperature)
            variables = {"params": params["net"], "batch_stats": state}
            how: Any = dict(method="decode", train=True, mutable=["batch_stats"])
            _, moved = self.net.apply(variables, draw, options.pass_size, **how)
            return {**state, **moved["batch_stats"]}, None

        return {**extra, "net": jax.lax.scan(one, extra["net"], jnp.arange(options.passes))[0]}


def sampler(model: Model) -> Sample:
    """Images of latents from the priors."""

    def sample(params: Params, extra: Extra, keys: Array, options: NVAESampling) -> Array:
        extra = model.reread(params, extra, options)
        noise = [samplers.noise(keys, shape, i) for i, shape in enumerate(model.shapes)]
        outputs = model.generate(params, extra, from_priors(noise, options.temperature), len(keys))
        return model.images(outputs, keys, options.noise)

    return sample


def pictures(model: Model) -> Mapping[str, Picture]:
    """Held-out images and their reconstructions."""

    def reconstructions(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Held-out images, each with its reconstruction on the right."""
        x = batch["image"][:32]
        x = model.prepare(key, x) if model.prepare else x
        zeros = [jnp.zeros((len(x), *shape)) for shape in model.shapes]
        outputs, _, _ = model.apply(params, extra, x, from_posteriors(zeros), False)
        return jnp.stack([x, model.law.mean(outputs)], 1).reshape(-1, *model.image)

    return {"reconstructions": reconstructions}


def objective(model: Model, config: NVAELossConfig, train: TrainConfig) -> LossFn:
    """The loss of training; updates are counted in every part of a step."""
    steps = train.steps * train.accumulate
    training = Training(
        config.kl_anneal * steps, config.kl_constant * steps, config.kl_least, balance_factors(model.config.groups),
        config.spectral, config.spectral_first,
    )  # fmt: skip
    return nvae(model.apply, model.law, model.shapes, training, model.prepare)


def evaluation(model: Model, validate: LossFn) -> Evaluate:
    """The bound and its halves in nats, and in bits a dimension under the name of its kind of likelihood."""
    measure = mean_metrics(validate)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        found = {f"{name}_nats": float(v) for name, v in measure(params, extra, key, batches, count).items()}
        return found | bound_in_bits(model.config.likelihood, found["bound_nats"], model.image, model.dequantize)

    return evaluate


def stage(
    config: NVAEConfig, loss: NVAELossConfig, optimizer: AdamaxConfig, data: DataConfig, train: TrainConfig,
    sampling: NVAESampling,
) -> Stage:  # fmt: skip
    """The training of NVAE."""
    model = Model(config, data, train.dtype)
    validate = nvae(model.apply, model.law, model.shapes, prepare=model.prepare)
    rate = warmup_cosine(optimizer.learning_rate, train.steps, optimizer.warmup, optimizer.final_learning_rate)
    adamax = optax.chain(optax.add_decayed_weights(optimizer.weight_decay), optax.adamax(rate, eps=1e-3))
    return Stage(
        name="nvae",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", objective(model, loss, train))],
        optimizers={"net": rated(adamax, rate)},
        sample=sampler(model),
        options=sampling,
        pictures=pictures(model),
        supports=frozenset(("dtype",)),
        validate=validate,
        evaluate=evaluation(model, validate),
    )
