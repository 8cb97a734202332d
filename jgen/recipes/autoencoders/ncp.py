"""NCP-VAE: a noise contrastive prior of the latents of an NVAE or a plain VAE (Aneja et al. 2020, arXiv:2010.02917).

Latents are classified in units of their prior, e = (z - mean) / deviation, where the base prior is a standard normal for every
group; the ratio of two densities is one and the same in all coordinates.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.autoencoder import VAESampling
from jgen.config.nvae import (
    AdamaxConfig,
    NCPConfig,
    NCPSampling,
    NVAEConfig,
    NVAELossConfig,
    NVAESampling,
    PlainVAEConfig,
)
from jgen.errors import UserError
from jgen.models.ratio import GroupRatio, VectorRatio
from jgen.nn.precision import in_dtype
from jgen.objectives.noise_contrastive import accuracy, binary_nce, log_normalizer
from jgen.objectives.nvae import from_posteriors, prior_of
from jgen.objectives.residual_normal import Normal
from jgen.recipes.autoencoders import nvae, vae, vae_model
from jgen.recipes.common import adam, both
from jgen.samplers.resampling import resample
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree


class Latents(NamedTuple):
    """A group's latents, in units of its prior."""

    e: Array
    """[B, ...]: draws of the posteriors."""
    context: Array | None
    """Features [B, side, side, any] of the groups above it; None where there are none."""


Choose = Callable[[int, Array | None, Normal], Array]
"""(which group, its context, its base prior) -> latents z [B, ...]."""


class Backbone(NamedTuple):
    """A trained VAE as the prior's training and sampling need it."""

    shapes: Sequence[tuple[int, ...]]
    """Shapes of the groups' latents, from the top down."""
    posteriors: Callable[[Params, Extra, Key, Array], list[Latents]]
    """(params, extra, key, images) -> every group's latents, its context that of the posteriors' draws above."""
    images: Callable[[Params, Extra, Key, NCPSampling, Choose], Array]
    """(params, extra, one key an image, options, how latents are chosen) -> images."""


def of_nvae(model: nvae.Model) -> Backbone:
    """NVAE, whose groups see the decoder's features."""

    def posteriors(params: Params, extra: Extra, key: Key, x: Array) -> list[Latents]:
        x = model.prepare(jax.random.fold_in(key, 1 << 20), x) if model.prepare else x
        noise = [jax.random.normal(jax.random.fold_in(key, i), (len(x), *s)) for i, s in enumerate(model.shapes)]
        _, groups, _ = model.apply(params, extra, x, from_posteriors(noise), False)
        return [_of_group(group) for group in groups]

    def _of_group(group: Any) -> Latents:
        prior = prior_of(group)
        return Latents((group.latents - prior.mean) / prior.deviation, group.features)

    def images(params: Params, extra: Extra, keys: Key, options: NCPSampling, choose: Choose) -> Array:
        extra = model.reread(params, extra, options)
        outputs = model.generate(params, extra, lambda k, g: choose(k, g.features, prior_of(g)), len(keys))
        return model.images(outputs, keys, options.noise)

    return Backbone(model.shapes, posteriors, images)


def of_vae(model: vae_model.Model) -> Backbone:
    """A plain VAE: one group, whose prior is a standard normal."""
    shape = (model.config.latents,)

    def posteriors(params: Params, extra: Extra, key: Key, x: Array) -> list[Latents]:
        keys = jax.random.split(key)
        mean, log_variance = model.encode(params["net"], model.prepare(keys[0], x))
        return [Latents(mean + jnp.exp(log_variance / 2) * jax.random.normal(keys[1], mean.shape), None)]

    def images(params: Params, extra: Extra, keys: Key, options: NCPSampling, choose: Choose) -> Array:
        if options.statistics != "running":
            raise UserError(f"statistics={options.statistics}: a plain VAE has no batch normalisation")
        z = choose(0, None, Normal(jnp.zeros((len(keys), *shape)), jnp.ones((len(keys), *shape))))
        return vae.images_of(model, params, z, keys, options.noise)

    return Backbone([shape], posteriors, images)


class Ratios:
    """The classifiers of all groups as functions of their weights; dtype is that of their layers."""

    def __init__(self, config: NCPConfig, backbone: Backbone, dtype: str = "float32"):
        kinds = [GroupRatio if len(shape) == 3 else VectorRatio for shape in backbone.shapes]
        self.nets = [in_dtype(kind(config.ncp_width, config.ncp_blocks), dtype) for kind in kinds]
        self.backbone = backbone

    def init(self, key: Key, params: Params, extra: Extra, image: Array) -> PyTree:
        """Fresh weights, whose ratios are 1."""
        found = {}
        for i, (net, latents) in enumerate(zip(self.nets, self.backbone.posteriors(params, extra, key, image))):

            def whole(net: Any, e: Array, context: Array | None) -> Array:
                return net(e) if context is None else net(e, net.embed(context))

            made: Any = net.init(jax.random.fold_in(key, i), *latents, method=whole)
            found[f"group_{i}"] = made["params"]
        return found

    def log_ratio(self, weights: PyTree, k: int, context: Array | None) -> Callable[[Array], Array]:
        """log r of a group: e [N, ...] -> [N], where row n goes with row n mod B of the context."""
        net, variables = self.nets[k], {"params": weights[f"group_{k}"]}
        if context is None:
            return lambda e: net.apply(variables, e)  # pyright: ignore[reportReturnType]
        seen: Any = net.apply(variables, context, method="embed")
        return lambda e: net.apply(variables, e, jnp.tile(seen, (len(e) // len(seen), 1, 1, 1)))  # pyright: ignore

    def of_batch(self, params: Params, extra: Extra, key: Key, x: Array, draws: int = 1) -> list[tuple[Array, Array]]:
        """log r of every group at the posteriors' latents [B] and, with the same contexts, at the base's [draws, B]."""
        found = []
        for k, (e, context) in enumerate(self.backbone.posteriors(params, extra, key, x)):
            ratio = self.log_ratio(params["ncp"], k, context)
            base = jax.random.normal(jax.random.fold_in(jax.random.fold_in(key, 1 << 21), k), (draws * len(e), *e.shape[1:]))
            found.append((ratio(e), ratio(base).reshape(draws, -1)))
        return found


def objective(ratios: Ratios) -> LossFn:
    """The sum of the groups' losses, and how many latents the classifiers sort rightly."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        found = ratios.of_batch(params, extra, key, batch["image"])
        value = sum((binary_nce(target, base) for target, base in found), jnp.zeros(()))
        right = [accuracy(target, base) for target, base in found]
        return value, (extra, {"accuracy": sum(right, jnp.zeros(())) / len(right), "accuracy_top": right[0]})

    return loss


def gain(ratios: Ratios, draws: int = 100) -> Evaluate:
    """How many nats the prior adds to the bound, sum over groups of E_q log r - log Z; an estimate, whose Z is of `draws`."""

    @jax.jit
    def measure(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        found = ratios.of_batch(params, extra, key, batch["image"], draws)
        return sum((jnp.mean(target - log_normalizer(base)) for target, base in found), jnp.zeros(()))

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        each = [measure(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        return {f"ncp_gain_nats_{draws}": float(sum(each)) / count}

    return evaluate


def chooser(ratios: Ratios, weights: PyTree, keys: Key, options: NCPSampling) -> Choose:
    """How latents of a group are drawn, given those above: by the method of the options."""
    temperature = options.temperature

    def choose(k: int, context: Array | None, prior: Normal) -> Array:
        own, shape = jax.vmap(lambda key: jax.random.fold_in(key, k))(keys), prior.mean.shape[1:]
        ratio = ratios.log_ratio(weights, k, context)
        if options.method == "sir":
            e = resample(ratio, own, shape, proposals=options.proposals, deviation=temperature)
        else:
            e = temperature * samplers.noise(own, shape)
        if options.method == "langevin":
            pull = jax.grad(lambda e: jnp.sum(ratio(e)))
            how: Any = dict(steps=options.steps, step_size=options.step_size)
            e = samplers.unadjusted_langevin(lambda e: pull(e) - e / temperature**2, e, own, **how)
        return prior.mean + prior.deviation * e

    return choose


def stage(config: NCPConfig, first: Stage, backbone: Backbone, optimizer: OptimizerConfig, options: NCPSampling) -> Stage:
    """The training of the classifiers beside the VAE of the stage before, which stays as it is.

    The classifiers are trained in train.dtype; the VAE, the evaluation and sampling are in float32.
    """
    ratios = Ratios(config, backbone)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        params, extra = first.init(key, batch)
        kept = {"net": extra["net"]} if "net" in extra else {}
        made = ratios.init(jax.random.fold_in(key, 1), params, kept, jnp.zeros((2, *first.data.shape)))
        return {**params, "ncp": made}, kept

    def begin(params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The VAE as it was trained, and fresh classifiers. Raises UserError for a VAE of other sizes."""
        if jax.tree.map(jnp.shape, params["net"]) != jax.tree.map(jnp.shape, fresh["net"]):
            raise UserError(f"{first.name}: not the network that the prior begins from; give it that one's settings")
        return {**fresh, "net": params["net"]}, {name: extra[name] for name in fresh_extra}

    def sample(params: Params, extra: Extra, keys: Key, options: NCPSampling) -> Array:
        return backbone.images(params, extra, keys, options, chooser(ratios, params["ncp"], keys, options))

    trained = Ratios(config, backbone, first.train.dtype)
    assert first.evaluate is not None
    return Stage(
        name="ncp",
        data=first.data,
        train=replace(first.train, steps=config.ncp_steps),
        init=init,
        phases=[Phase("ncp", objective(trained))],
        optimizers={"ncp": adam(optimizer, config.ncp_steps)},
        ema={"ncp": ramped(optimizer.ema)},
        sample=sample,
        options=options,
        pictures=first.pictures,
        supports=frozenset(("dtype",)),
        validate=objective(ratios),
        evaluate=both(first.evaluate, gain(ratios)),
        begin=begin,
    )


def nvae_stages(
    config: NVAEConfig, loss: NVAELossConfig, ncp: NCPConfig, data: DataConfig, train: TrainConfig, first: AdamaxConfig,
    optimizer: OptimizerConfig, options: NCPSampling,
) -> list[Stage]:  # fmt: skip
    """NVAE, then its prior, each with its optimizer."""
    shared = NVAESampling(options.temperature, options.noise, options.statistics, options.passes, options.pass_size)
    base = nvae.stage(config, loss, first, data, train, shared)
    return [base, stage(ncp, base, of_nvae(nvae.Model(config, data)), optimizer, options)]


def vae_stages(
    config: PlainVAEConfig, ncp: NCPConfig, data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig,
    options: NCPSampling,
) -> list[Stage]:  # fmt: skip
    """A plain VAE, then its prior. Raises UserError for a kind of autoencoder that has no prior."""
    model = vae_model.Model(config.network, data, train.dtype)
    if not model.has_prior:
        raise UserError(f"vae.network.kind={config.network.kind}: has no prior to improve; must be vae or iwae")
    shared = VAESampling(options.noise, options.temperature)
    base = vae.stage(config.network, config.loss, config.optimizer, data, train, shared)
    return [base, stage(ncp, base, of_vae(model), optimizer, options)]
