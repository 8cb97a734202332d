"""The training, sampling and evaluation of VAEs and of autoencoders without a prior."""

import math
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.bits import bits_per_dim
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.autoencoder import VAEConfig, VAELossConfig, VAESampling
from jgen.objectives import vae
from jgen.recipes.autoencoders.vae_model import Model
from jgen.recipes.autoencoders.vae_pictures import pictures
from jgen.recipes.common import adam_rate
from jgen.train import Phase
from jgen.train.rates import ramped, rated
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Params, Sample


def objective(model: Model, config: VAELossConfig, accumulate: int, train: bool) -> LossFn:
    """The loss of the model's kind; on held-out images the plain bound, or the error without noise on the input.

    accumulate: parts of a step; the updates of the KL's warm-up are counted in each.
    """
    kind = model.config.kind
    if model.has_prior:
        return vae.vae(
            model.encode,
            model.decode,
            model.likelihood,
            beta=config.beta if train else 1.0,
            free_bits=config.free_bits if train else 0.0,
            warmup=config.kl_warmup * accumulate if train else 0,
            samples=config.importance_samples if kind == "iwae" else 1,
            prepare=model.prepare,
        )
    return vae.autoencoder(
        model.encode,
        model.decode,
        model.likelihood,
        noise=config.noise if kind == "denoising" and train else 0.0,
        sparsity="kl" if kind == "sparse_kl" else "l1" if kind == "sparse_l1" else "none",
        weight=config.sparsity,
    )


def sampler(model: Model) -> Sample:
    """Images of latents from the prior: the likelihood's mean, or a draw of it."""

    def sample(params: Params, extra: Extra, keys: Array, options: VAESampling) -> Array:
        z = options.deviation * samplers.noise(keys, (model.config.latents,))
        return images_of(model, params, z, keys, options.noise)

    return sample


def images_of(model: Model, params: Params, z: Array, keys: Key, noise: bool) -> Array:
    """Images of latents: the likelihood's means, or draws of it by the images' keys."""
    if not noise:
        return model.images(params, z)
    shape = (*model.shape[:2], model.likelihood.uniforms)
    uniforms = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 1), shape))(keys)
    return model.likelihood.draw(model.decode(params["net"], z), uniforms)


def evaluation(model: Model, bound_samples: int, dequantize: bool) -> Evaluate:
    """The evidence bound and the importance-weighted one, in nats and bits/dim; without a prior, the error alone.

    bound_samples: draws of the importance-weighted bound. dequantize: whether the data has uniform noise added.
    """

    @jax.jit
    def measure(params: Params, key: Key, batch: Batch) -> Array:
        keys = jax.random.split(key, 3)
        x = model.prepare(keys[0], batch["image"])

        def encode(x: Array) -> tuple[Array, Array]:
            return model.encode(params["net"], x)

        def decode(z: Array) -> Array:
            return model.decode(params["net"], z)

        if not model.has_prior:
            return -jnp.mean(jnp.sum(model.likelihood.log_prob(decode(model.code(encode(x)[0])), x), (1, 2)))
        eps = jax.random.normal(keys[1], (len(x), model.config.latents))
        terms = vae.elbo_terms(encode, decode, model.likelihood, x, eps)
        tight = vae.importance_log_likelihood(encode, decode, model.likelihood, x, keys[2], bound_samples, 10)
        parts = (terms.reconstruction, jnp.sum(terms.kl, 1), -tight)
        return jnp.stack([jnp.mean(p) for p in parts])

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        parts = [measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        mean = sum(parts, jnp.zeros(())) / count
        if not model.has_prior:
            return {"reconstruction_nats": float(mean)}
        reconstruction, kl, tight = map(float, mean)
        found = {"bound_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        found[f"iwae_{bound_samples}_nats"] = tight
        return found | bound_in_bits(model.config.likelihood, reconstruction + kl, model.shape, dequantize)

    return evaluate


def bound_in_bits(kind: str, nats: float, shape: Sequence[int], dequantize: bool) -> dict[str, float]:
    """A bound in bits/dim, under the name of its kind of likelihood: bernoulli, gaussian, or one of 8-bit values."""
    if kind == "bernoulli":
        return {"bits_per_dim_binarised_bound": nats / math.log(2) / math.prod(shape)}
    how = "none" if kind == "gaussian" else "discrete"
    bits = bits_per_dim(nats, shape, "uniform" if dequantize else how, bound=True, scale=2)
    return {bits.name: bits.bits}


def stage(
    config: VAEConfig,
    loss: VAELossConfig,
    optimizer: OptimizerConfig,
    data: DataConfig,
    train: TrainConfig,
    sampling: VAESampling,
) -> Stage:
    """The training of a VAE, or of an autoencoder without a prior, which has no samples."""
    model = Model(config, data, train.dtype)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        params = model.net.init(key, jnp.zeros((1, *data.shape)))["params"]
        return {"net": params}, {"updates": jnp.zeros((), jnp.int32)} if loss.kl_warmup else {}

    adam = optax.adam(adam_rate(optimizer, train.steps), optimizer.beta_1, optimizer.beta_2)
    clip = [optax.clip_by_global_norm(optimizer.clip)] if optimizer.clip else []
    return Stage(
        name="vae",
        data=data,
        train=train,
        init=init,
        phases=[Phase("net", objective(model, loss, train.accumulate, train=True))],
        # Without clipping nothing stands before Adam, as in the checkpoints that there are.
        optimizers={"net": rated(optax.chain(*clip, adam), adam_rate(optimizer, train.steps))},
        ema={"net": ramped(optimizer.ema)},
        supports=frozenset(("dtype",)),
        sample=sampler(model) if model.has_prior else None,
        options=sampling,
        pictures=pictures(model),
        validate=objective(model, loss, train.accumulate, train=False),
        evaluate=evaluation(model, loss.bound_samples, data.dequantize),
    )
