"""The second stage of latent diffusion: the diffusion of an autoencoder's latents."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen import samplers
from jgen.config import ChainConfig, DataConfig, OptimizerConfig, TrainConfig, UNetConfig
from jgen.config.autoencoder import FirstStageConfig
from jgen.config.chain import PredictionName
from jgen.config.latent import LatentSampling, PriorConfig
from jgen.data import open_source
from jgen.data.images import scaled
from jgen.edit.space import NoiseSpace
from jgen.errors import UserError
from jgen.models.autoencoder import AutoencoderKL, VQModel
from jgen.objectives import diffusion, vlb
from jgen.objectives import first_stage as bottleneck
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning, by_caption, by_label
from jgen.recipes.autoencoders.first_stage import autoencoder_stage, first_stage
from jgen.recipes.common import adam, both, mean_loss
from jgen.recipes.diffusion.editing import edit_levels, edits
from jgen.recipes.diffusion.guidance import Request
from jgen.recipes.diffusion.model import DiffusionModel, chain_model, noise_chain
from jgen.recipes.diffusion.noise_space import condition_of, noise_space
from jgen.recipes.diffusion.prior_network import captions, prior_network
from jgen.recipes.diffusion.sampling import draw, guided_denoiser
from jgen.recipes.diffusion.stage import network_fn, rescaled
from jgen.recipes.evaluation.agreement import agreement
from jgen.recipes.evaluation.observer import has_classifier
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Condition, Denoise, Extra, Key, LossFn, Metrics, Params


class LatentPrior:
    """The diffusion of an autoencoder's latents: its objective, its samples, and its stage of training."""

    def __init__(
        self, config: PriorConfig, network: UNetConfig, chain: ChainConfig, data: DataConfig, train: TrainConfig,
        first: FirstStageConfig, net: AutoencoderKL | VQModel,
    ):  # fmt: skip
        self.config, self.data, self.train, self.codes, self.net = config, data, train, first.first == "vq", net
        self.chain = noise_chain(chain)
        self.prediction: PredictionName = chain.prediction
        self.text = config.condition == "text"
        made = prior_network(config, network, data, train, first.latent_channels)
        self.network = made._replace(apply=rescaled(made.apply, chain))
        self.examples = captions(data, train.seed) if self.text else None
        self.conditioning = self._conditioning()
        self.classes = data.num_classes if config.condition == "class" else 0
        self.model: DiffusionModel = chain_model(
            net.grid(*data.shape[:2]), network_fn(self.network.apply, "prior"), self.chain, self.prediction,
            conditioning=self.conditioning, classes=self.classes, pixels=False,
            variance="learned_range" if config.learn_variance else "small",
        )  # fmt: skip

    def _conditioning(self) -> Conditioning:
        if self.config.condition == "none":
            return UNCONDITIONAL
        return by_caption(self.config.drop_label) if self.text else by_label(self.data.num_classes, self.config.drop_label)

    def encode(self, params: Params, x: Array, key: Key | None = None) -> Array:
        """Latents of images, before they are scaled; without a key the means of them."""
        found: Any = self.net.apply({"params": params["net"]}, x, method="encode")
        if self.codes:
            return found
        return found[0] if key is None else bottleneck.latents(found[0], found[1], jax.random.normal(key, found[0].shape))

    def encode_scaled(self, params: Params, extra: Extra, x: Array) -> Array:
        """Scaled latents of images."""
        return extra["scale"] * self.encode(params, x)

    def decode(self, params: Params, extra: Extra, z: Array) -> Array:
        """Images of scaled latents."""
        method = "decode_nearest" if self.codes else "decode"
        images: Array = self.net.apply({"params": params["net"]}, z / extra["scale"], method=method)  # pyright: ignore
        return jnp.clip(images, -1, 1)

    def objective(self, train: bool) -> LossFn:
        """The simple loss of scaled latents, or the hybrid one where the variance is learned."""
        kind = vlb.hybrid if self.config.learn_variance else diffusion.simple
        how: dict[str, Any] = dict(player="prior", train=train, conditioning=self.conditioning)
        own = kind(self.network.apply, self.chain, self.prediction, **how)

        def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
            latents = extra["scale"] * self.encode(params, batch["image"], jax.random.fold_in(key, 7))
            return own(params, extra, key, {**batch, "image": jax.lax.stop_gradient(latents)})

        return loss

    def request(self, keys: Key, options: LatentSampling) -> Request:
        """The caption or class of every image. Raises UserError for options that the model has no use for."""
        guide = options.guide
        for name in ("threshold", "classifier", "classifier_scale"):
            if value := getattr(guide, name):
                raise UserError(f"{name}={value}: is for pixels, and these are latents")
        if not guide.clip_denoised:
            raise UserError("clip_denoised=False: is for pixels; latents are never clipped")
        if self.text:
            if options.label != -1:
                raise UserError(f"label={options.label}: this model takes captions; say --prompt")
            known = jnp.asarray(captions(self.data, self.train.seed, options.prompt))
            which = jax.vmap(lambda k: jax.random.randint(jax.random.fold_in(k, 1 << 30), (), 0, len(known)))(keys)
            return Request(Condition(caption=known[which]))
        if options.prompt:
            raise UserError(f"prompt={options.prompt}: this model has no captions; train one with --condition text")
        if guide.guidance != 1 and not self.classes:
            raise UserError(f"guidance={guide.guidance}: this model has no condition; train one with --condition class or text")
        return Request(Condition(label=samplers.class_labels(keys, options.label, self.classes)))

    def draw(self, params: Params, extra: Extra, keys: Key, request: Request, options: LatentSampling) -> Array:
        """Images, decoded from latents that are drawn."""
        return self.decode(params, extra, draw(self.model, params, keys, request, options))

    def sample(self, params: Params, extra: Extra, keys: Key, options: LatentSampling) -> Array:
        """The stage's sampler. Raises UserError for options that can't be."""
        return self.draw(params, extra, keys, self.request(keys, options), options)

    def edits(self, options: LatentSampling) -> dict[str, Picture]:
        """Held-out images, edited by way of their latents."""

        def request(batch: Batch, keys: Key) -> Request:
            requested = self.request(keys, options)
            if self.text:
                own = not options.prompt and "caption" in batch
                return Request(Condition(caption=batch["caption"])) if own else requested
            own = self.classes and options.label < 0 and "label" in batch
            return Request(Condition(label=batch["label"])) if own else requested

        def denoiser_of(params: Params, extra: Extra, request: Request) -> Denoise:
            return guided_denoiser(self.model, params, request, options)

        return edits(options, denoiser_of, lambda s: edit_levels(self.model, s), request, self.encode_scaled, self.decode)

    def noise(self) -> NoiseSpace:
        """The noise of latents, for images of a class; of a model of captions for images without one."""

        def guided_of(params: Params, extra: Extra, keys: Key, options: LatentSampling) -> Denoise:
            request = self.request(keys, options)
            if not (options.prompt if self.text else options.label >= 0):
                wanted = "--prompt TEXT" if self.text else "--label 3" if self.classes else "sdedit or inpaint, which need none"
                raise UserError(f"method=ddim: needs the class or the text that pictures become; say {wanted}")
            return guided_denoiser(self.model, params, request, options)

        def uncaptioned(label: int, count: int) -> Condition:
            if label != -1 or not self.config.drop_label:
                raise UserError(f"from_label={label}: this model takes captions; -1 needs one that was trained with drop_label")
            assert self.examples is not None
            return Condition(caption=jnp.zeros((count, *self.examples.shape[1:]), self.examples.dtype))

        condition = uncaptioned if self.text else condition_of(self.model)
        return noise_space(self.model, guided_of, condition, self.encode_scaled, self.decode)

    def scale(self, params: Params) -> Array:
        """The factor that gives the latents of the first 256 images unit deviation."""
        source = open_source(self.data, self.train.seed)
        images = scaled(np.stack([source[i]["image"] for i in range(min(len(source), 256))]))
        return bottleneck.scale_factor(self.encode(params, jnp.asarray(images), jax.random.key(0)))


def prior_stage(prior: LatentPrior, first: Stage, optimizer: OptimizerConfig, options: LatentSampling) -> Stage:
    """The stage that trains the prior beside the autoencoder of the stage before."""
    config, data = prior.config, prior.data

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        params, extra = first.init(key, batch)
        caption = None if prior.examples is None else jnp.asarray(prior.examples[:1])
        made = prior.network.init(jax.random.fold_in(key, 1), jnp.zeros((1, *prior.model.shape)), caption)
        return {**params, "prior": made}, {**extra, "scale": jnp.asarray(config.scale or 1.0, jnp.float32)}

    def begin(params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The autoencoder as it was trained, a fresh prior, and the scale of the latents. UserError for other sizes."""
        if jax.tree.map(jnp.shape, params["net"]) != jax.tree.map(jnp.shape, fresh["net"]):
            kind = "vq" if prior.codes else "kl"
            raise UserError(
                f"first={kind}, latents of {prior.model.shape}: not the autoencoder that the prior begins from; "
                "give it that one's settings"
            )
        if not config.scale:
            fresh_extra = {**fresh_extra, "scale": prior.scale(params)}
        return {**fresh, **{k: v for k, v in params.items() if k != "prior"}}, fresh_extra

    validate = prior.objective(train=False)
    evaluate = mean_loss(validate)
    if config.condition != "none" and has_classifier(data.name):
        evaluate = both(evaluate, agreement(data, "caption" if prior.text else "label", _of_held_out(prior, options)))
    return Stage(
        name="diffusion",
        data=data,
        train=replace(prior.train, steps=config.prior_steps),
        init=init,
        phases=[Phase("prior", prior.objective(train=True))],
        optimizers={"prior": adam(optimizer, config.prior_steps)},
        ema={"prior": ramped(optimizer.ema)},
        sample=prior.sample,
        on_request=prior.edits(options),
        noise=prior.noise(),
        options=options,
        validate=validate,
        evaluate=evaluate,
        supports=frozenset(("dtype", "remat")),
        example_inputs={} if prior.examples is None else {"caption": prior.examples[0]},
        begin=begin,
    )


def _of_held_out(prior: LatentPrior, options: LatentSampling) -> Callable[[Params, Extra, Key, Array], Array]:
    """(params, extra, keys, held-out classes or captions) -> images of them. UserError where the options ask for others."""

    def images(params: Params, extra: Extra, keys: Key, shown: Array) -> Array:
        for name, value, default in (("label", options.label, -1), ("prompt", options.prompt, "")):
            if value != default:
                raise UserError(f"{name}={value}: the evaluation asks for what held-out images show; only sample takes one")
        prior.request(keys, options)  # which checks them
        condition = Condition(caption=shown) if prior.text else Condition(label=shown)
        return prior.draw(params, extra, keys, Request(condition), options)

    return images


def latent_stages(
    first: FirstStageConfig, prior: PriorConfig, network: UNetConfig, chain: ChainConfig, data: DataConfig, train: TrainConfig,
    first_optimizer: OptimizerConfig, optimizer: OptimizerConfig, options: LatentSampling,
) -> list[Stage]:  # fmt: skip
    """The autoencoder, then the diffusion of its latents, each with its optimizer."""
    net = first_stage(first, data)
    autoencoder = autoencoder_stage(first, net, data, train, first_optimizer)
    return [
        autoencoder,
        prior_stage(LatentPrior(prior, network, chain, data, train, first, net), autoencoder, optimizer, options),
    ]
