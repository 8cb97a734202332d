"""The first stage of latent diffusion: an autoencoder with a KL or codes, and its training (arXiv:2112.10752)."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.autoencoder import FirstStageConfig
from jgen.errors import UserError
from jgen.metrics.extract import open_extractor
from jgen.metrics.image_quality import psnr
from jgen.metrics.lpips import Distance, open_lpips
from jgen.models.autoencoder import AutoencoderKL, VQModel
from jgen.models.vqvae import straight_through
from jgen.nn.norm import groups_of
from jgen.nn.precision import in_dtype
from jgen.objectives import first_stage as objectives
from jgen.recipes.autoencoders.first_stage_losses import Losses, Reconstruct
from jgen.recipes.common import adam, adam_rate
from jgen.train import Phase
from jgen.train.rates import ramped, rated_adam
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, Params, PyTree


def first_stage(config: FirstStageConfig, data: DataConfig) -> AutoencoderKL | VQModel:
    """The network."""
    levels = len(config.first_mult)
    shape: dict[str, Any] = dict(
        image_channels=data.shape[-1],
        z_channels=config.latent_channels,
        embed=config.latent_channels,
        channels=config.first_channels,
        channel_mult=config.first_mult,
        num_res_blocks=config.first_blocks,
        groups=groups_of(config.first_channels),
        attention=(levels - 1,) if config.first_attention and config.first == "kl" else (),
    )
    return VQModel(**shape, codes=config.codes) if config.first == "vq" else AutoencoderKL(**shape)


def perceptual_distance(config: FirstStageConfig, data_name: str) -> tuple[Distance | None, PyTree]:
    """The perceptual term, ((weights, images, images) -> [B], its weights); (None, {}) where its weight is 0.

    It is LPIPS where its files are given, else the squared difference of features of the classifier that ships with jgen
    for the set. Raises UserError for files without a weight, and for a set without a classifier.
    """
    files = config.perceptual_trunk, config.perceptual_heads
    if not config.perceptual:
        if any(files):
            raise UserError("perceptual=0.0: must be above 0 where perceptual_trunk and perceptual_heads are given")
        return None, {}
    if any(files):
        return open_lpips(*files)
    extractor = open_extractor("", data_name)

    def distance(weights: PyTree, a: Array, b: Array) -> Array:
        of_a, of_b = (extractor.apply(weights, (v + 1) * 127.5)[0] for v in (a, b))
        return jnp.mean(jnp.square(of_a - of_b), -1)

    return distance, extractor.variables


def reconstructor(config: FirstStageConfig, net: AutoencoderKL | VQModel) -> Reconstruct:
    """(weights, images, key) -> (their reconstructions, the penalty of the bottleneck)."""
    apply: Callable[..., Any] = net.apply

    def by_codes(params: PyTree, x: Array, key: Key) -> tuple[Array, Array]:
        variables = {"params": params}
        q = apply(variables, apply(variables, x, method="encode"), method="quantize")
        out = apply(variables, straight_through(q), method="decode")
        return out, objectives.codebook_loss(q, legacy=False)

    def by_gaussians(params: PyTree, x: Array, key: Key) -> tuple[Array, Array]:
        variables = {"params": params}
        mean, log_variance = apply(variables, x, method="encode")
        z = objectives.latents(mean, log_variance, jax.random.normal(key, mean.shape))
        penalty = config.kl_weight * jnp.mean(objectives.kl(mean, log_variance)) / math.prod(x.shape[1:])
        return apply(variables, z, method="decode"), penalty

    return by_codes if config.first == "vq" else by_gaussians


def evaluation(reconstructed: Callable[[Params, Array], Array]) -> Evaluate:
    """The mean absolute error and the PSNR of reconstructions of held-out images."""

    @jax.jit
    def measure(params: Params, batch: Batch) -> Array:
        x = batch["image"]
        out = reconstructed(params, x)
        return jnp.stack([jnp.mean(jnp.abs(out - x)), jnp.mean(psnr(x, out))])

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Array]:
        error, ratio = sum((measure(params, next(batches)) for _ in range(count)), jnp.zeros(2)) / count
        return {"mean_absolute_error": error, "psnr_db": ratio}

    return evaluate


def players(config: FirstStageConfig, optimizer: OptimizerConfig, steps: int) -> dict[str, optax.GradientTransformation]:
    """The optimizers of the autoencoder and, where it has a weight, of the patch discriminator."""
    critic = rated_adam(adam_rate(optimizer, steps), b1=0.5, b2=0.9)
    return {"net": adam(optimizer, steps)} | ({"critic": critic} if config.adversarial else {})


def autoencoder_stage(
    config: FirstStageConfig, net: AutoencoderKL | VQModel, data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig
) -> Stage:
    """The training of the autoencoder, and of the patch discriminator where it has a weight."""
    distance, features = perceptual_distance(config, data.name)
    trained = reconstructor(config, in_dtype(net, train.dtype))
    losses = Losses(config, trained, distance, features, data.shape, train.accumulate)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys = jax.random.split(key)
        params, extra = losses.init(keys[1])
        return {**params, "net": net.init(keys[0], jnp.zeros((1, *data.shape)))["params"]}, extra

    def reconstructed(params: Params, x: Array) -> Array:
        out: Any = net.apply({"params": params["net"]}, x)
        return jnp.clip(out, -1, 1)

    def reconstructions(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Held-out images, each with its reconstruction on the right."""
        x = batch["image"][:32]
        return jnp.stack([x, reconstructed(params, x)], 1).reshape(-1, *data.shape)

    phases = [Phase("net", losses.autoencoder(train=True))]
    return Stage(
        name="autoencoder",
        data=data,
        train=train,
        init=init,
        phases=[*phases, Phase("critic", losses.critic)] if config.adversarial else phases,
        optimizers=players(config, optimizer, train.steps),
        ema={"net": ramped(optimizer.ema)},
        supports=frozenset(("dtype",)),
        pictures={"reconstructions": reconstructions},
        validate=losses.autoencoder(train=False),
        evaluate=evaluation(reconstructed),
    )
