"""Objectives of autoencoders: the evidence bound and its relatives, in nats an image.

Kingma & Welling 2013 (arXiv:1312.6114); beta-VAE, Higgins et al. 2017; importance weighting, Burda et al. 2015
(arXiv:1509.00519); free bits, Kingma et al. 2016 (arXiv:1606.04934); denoising, Vincent et al. 2008; sparse, Ng 2011.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.objectives.likelihood import Likelihood
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

Encode = Callable[[Array], tuple[Array, Array]]
"""x [B, H, W, C] -> (mean, log variance) of q(z | x) [B, D]."""
Decode = Callable[[Array], Array]
"""z [B, D] -> outputs of the likelihood [B, H, W, K]."""


class Terms(NamedTuple):
    reconstruction: Array
    """-log p(x | z) [B]."""
    kl: Array
    """KL divergence of every coordinate of q(z | x) from the prior [B, D]."""
    z: Array


def reparametrize(mean: Array, log_variance: Array, eps: Array) -> Array:
    """z = mean + deviation * eps."""
    return mean + jnp.exp(log_variance / 2) * eps


def gaussian_kl(mean: Array, log_variance: Array) -> Array:
    """KL of N(mean, variance) from N(0, 1), coordinate by coordinate."""
    return 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)


def elbo_terms(encode: Encode, decode: Decode, law: Likelihood, x: Array, eps: Array) -> Terms:
    """The two halves of the negative evidence bound, with one draw z = mean + deviation * eps."""
    mean, log_variance = encode(x)
    z = reparametrize(mean, log_variance, eps)
    return Terms(-jnp.sum(law.log_prob(decode(z), x), (1, 2)), gaussian_kl(mean, log_variance), z)


def log_weights(encode: Encode, decode: Decode, law: Likelihood, x: Array, eps: Array) -> tuple[Array, Array, Array]:
    """(log w, log p(x | z), log q(z | x) - log p(z)), each [B, K], of eps [B, K, D]; w = p(x | z) p(z) / q(z | x)."""
    (mean, log_variance), (b, k, d) = encode(x), eps.shape
    z = reparametrize(mean[:, None], log_variance[:, None], eps)
    flat = jnp.broadcast_to(x[:, None], (b, k, *x.shape[1:])).reshape(b * k, *x.shape[1:])
    likelihood = jnp.sum(law.log_prob(decode(z.reshape(b * k, d)), flat), (1, 2)).reshape(b, k)
    ratio = 0.5 * jnp.sum(jnp.square(z) - jnp.square(eps) - log_variance[:, None], -1)
    return likelihood - ratio, likelihood, ratio


def iwae_bound(log_w: Array) -> Array:
    """log mean w [B] of log weights [B, K]: a bound on log p(x) that K tightens."""
    return jax.nn.logsumexp(log_w, 1) - jnp.log(log_w.shape[1])


def iwae_surrogate(log_w: Array) -> Array:
    """The loss that pythae reports for IWAE, per image [B]: its gradient is that of -iwae_bound, its value is not."""
    return -jnp.sum(jax.lax.stop_gradient(jax.nn.softmax(log_w, 1)) * log_w, 1)


def vae(
    encode: Callable[..., tuple[Array, Array]],
    decode: Callable[..., Array],
    law: Likelihood,
    *,
    player: str = "net",
    beta: float = 1.0,
    free_bits: float = 0.0,
    warmup: int = 0,
    samples: int = 1,
    prepare: Callable[[Key, Array], Array] | None = None,
) -> LossFn:
    """reconstruction + weight * KL, mean over the batch, in nats an image; encode and decode take params first.

    beta: weight of the KL. free_bits: nats a latent coordinate that cost nothing, on the batch's mean. warmup: updates
    over which the KL's weight rises from 0; they are counted in extra["updates"]. samples > 1: the importance-weighted
    bound instead, with that many draws. prepare(key, x): a stochastic change of the images first, such as `binarize`.
    """
    if samples < 1 or beta < 0 or free_bits < 0 or warmup < 0:
        raise UserError(f"samples={samples}, beta={beta}, free_bits={free_bits}, warmup={warmup}: at least 1, 0, 0, 0")
    if samples > 1 and (beta != 1 or free_bits or warmup):
        raise UserError(f"samples={samples}: the importance-weighted bound takes no beta, free_bits or warmup")

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        prepare_key, eps_key = jax.random.split(key)
        x = prepare(prepare_key, batch["image"]) if prepare else batch["image"]

        def enc(x: Array) -> tuple[Array, Array]:
            return encode(params[player], x)

        def dec(z: Array) -> Array:
            return decode(params[player], z)

        if samples > 1:
            width = jax.eval_shape(enc, x)[0].shape[1]
            log_w, likelihood, ratio = log_weights(enc, dec, law, x, jax.random.normal(eps_key, (len(x), samples, width)))
            value = -jnp.mean(iwae_bound(log_w))
            return value, (extra, {"reconstruction": -jnp.mean(likelihood), "kl": jnp.mean(ratio)})
        eps = jax.random.normal(eps_key, jax.eval_shape(enc, x)[0].shape)
        terms = elbo_terms(enc, dec, law, x, eps)
        each = jnp.mean(terms.kl, 0)
        kl, weight = jnp.sum(each), beta
        if warmup:
            updates = extra["updates"]
            weight = beta * jnp.minimum(1.0, updates / warmup)
            extra = {**extra, "updates": updates + 1}
        reconstruction = jnp.mean(terms.reconstruction)
        value = reconstruction + weight * jnp.sum(jnp.maximum(each, free_bits))
        return value, (extra, {"reconstruction": reconstruction, "kl": kl, "bound": reconstruction + kl})

    return loss


def autoencoder(
    encode: Callable[..., tuple[Array, Array]],
    decode: Callable[..., Array],
    law: Likelihood,
    *,
    player: str = "net",
    noise: float = 0.0,
    sparsity: Literal["none", "kl", "l1"] = "none",
    weight: float = 1.0,
    target: float = 0.05,
) -> LossFn:
    """An autoencoder without a prior: the code is the encoder's mean, mean -log p(x | code) in nats an image.

    noise: deviation of Gaussian noise on the input, to be taken away again (denoising). sparsity "kl": weight * KL
    between Bernoulli(target) and each unit's mean activation, a sigmoid of the code; "l1": weight * mean |code|_1.
    """
    if noise < 0 or not 0 < target < 1:
        raise UserError(f"noise={noise}, target={target}: must be at least 0, and between 0 and 1")

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x = batch["image"]
        given = x + noise * jax.random.normal(key, x.shape) if noise else x
        code, _ = encode(params[player], given)
        if sparsity == "kl":
            code = jax.nn.sigmoid(code)
            rate = jnp.clip(jnp.mean(code, 0), 1e-6, 1 - 1e-6)
            penalty = jnp.sum(target * jnp.log(target / rate) + (1 - target) * jnp.log((1 - target) / (1 - rate)))
        else:
            penalty = jnp.mean(jnp.sum(jnp.abs(code), 1)) if sparsity == "l1" else jnp.zeros(())
        value = -jnp.mean(jnp.sum(law.log_prob(decode(params[player], code), x), (1, 2)))
        return value + weight * penalty, (extra, {"reconstruction": value, "sparsity": penalty})

    return loss


def binarize(key: Key, x: Array) -> Array:
    """Each pixel of images in [-1, 1] becomes 1 with its brightness as the probability, else -1: dynamic binarisation."""
    return jnp.where(jax.random.uniform(key, x.shape) < (x + 1) / 2, 1.0, -1.0)


def importance_log_likelihood(
    encode: Encode, decode: Decode, law: Likelihood, x: Array, key: Key, samples: int, batch: int = 50
) -> Array:
    """log p(x) [B] as the importance-weighted bound with many samples, `batch` of them at a time (a scan)."""
    if samples < 1 or samples % min(batch, samples):
        raise UserError(f"samples={samples}: must be at least 1, and a multiple of batch={batch} above it")
    size = min(batch, samples)
    width = jax.eval_shape(encode, x)[0].shape[1]

    def part(_: Any, key: Key) -> tuple[Any, Array]:
        eps = jax.random.normal(key, (len(x), size, width))
        return None, iwae_bound(log_weights(encode, decode, law, x, eps)[0])

    _, bounds = jax.lax.scan(part, None, jax.random.split(key, samples // size))
    return jax.nn.logsumexp(bounds, 0) - jnp.log(len(bounds))
