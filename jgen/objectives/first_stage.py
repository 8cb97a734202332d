"""Objectives of latent diffusion's first stages (Rombach et al. 2022, arXiv:2112.10752, appendix G; Esser et al. 2021,
arXiv:2012.09841): reconstruction, an optional perceptual distance, a weak KL or a codebook loss, and a patch discriminator
whose weight follows the gradients. The deterministic cores take every draw and output as an argument.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax

from jgen.models.vqvae import Quantized
from jgen.types import Array

DiscriminatorLoss = Literal["hinge", "vanilla"]


def kl(mean: Array, log_variance: Array) -> Array:
    """KL to the unit normal of Gaussian latents, summed over all but the batch: [B], in nats."""
    terms = 0.5 * (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance)
    return jnp.sum(terms, axis=tuple(range(1, mean.ndim)))


def latents(mean: Array, log_variance: Array, noise: Array) -> Array:
    """A draw of Gaussian latents, for standard normal noise of their shape."""
    return mean + jnp.exp(0.5 * log_variance) * noise


def negative_log_density(x: Array, mean: Array, log_variance: Array) -> Array:
    """-log q(x) of Gaussian latents [B], in nats."""
    terms = 0.5 * (jnp.log(2 * jnp.pi) + log_variance + jnp.square(x - mean) * jnp.exp(-log_variance))
    return jnp.sum(terms, axis=tuple(range(1, x.ndim)))


def reconstruction(x: Array, out: Array, perceptual: Array | None = None, weight: float = 1.0, squared: bool = False) -> Array:
    """|x - out|, or its square, per pixel [B, H, W, C]; a perceptual distance [B, 1, 1, 1] counts at every pixel."""
    error = jnp.square(x - out) if squared else jnp.abs(x - out)
    return error if perceptual is None else error + weight * perceptual


def kl_nll(errors: Array, log_variance: Array | float = 0.0) -> Array:
    """Laplace-like -log p: errors over a learned scale, summed over everything but averaged over the batch."""
    return jnp.sum(errors / jnp.exp(log_variance) + log_variance) / len(errors)


def codebook_loss(q: Quantized, beta: float = 0.25, legacy: bool = True) -> Array:
    """Commitment and codebook terms, means over all entries.

    legacy, as the published models were trained: beta is on the codebook's term, not on the commitment's.
    """
    commitment = jnp.mean(jnp.square(lax.stop_gradient(q.vectors) - q.z))
    codebook = jnp.mean(jnp.square(q.vectors - lax.stop_gradient(q.z)))
    return commitment + beta * codebook if legacy else beta * commitment + codebook


def generator_loss(logits: Array) -> Array:
    """-mean of the discriminator's logits of reconstructions."""
    return -jnp.mean(logits)


def discriminator_loss(real: Array, fake: Array, kind: DiscriminatorLoss = "hinge") -> Array:
    """Half of the hinge or logistic losses of both."""
    law = jax.nn.relu if kind == "hinge" else jax.nn.softplus
    margin = 1.0 if kind == "hinge" else 0.0
    return 0.5 * (jnp.mean(law(margin - real)) + jnp.mean(law(margin + fake)))


def adaptive_weight(
    nll: Callable[[Any], Array], adversarial: Callable[[Any], Array], last_layer: Any, scale: float = 1.0, most: float = 1e4
) -> Array:
    """|d nll| / (|d adversarial| + 1e-4) with respect to the decoder's last layer, at most `most`, times scale; no gradient.

    Both are functions of that layer's kernel, so that the discriminator pulls on it as strongly as the reconstruction does.
    """
    norms = [jnp.sqrt(jnp.sum(jnp.square(jax.grad(f)(last_layer)))) for f in (nll, adversarial)]
    return lax.stop_gradient(jnp.clip(norms[0] / (norms[1] + 1e-4), 0.0, most) * scale)


def begun(step: Array | int, start: int) -> Array:
    """1 from step `start` on, before it 0: what the adversarial terms are multiplied by."""
    return (jnp.asarray(step) >= start).astype(jnp.float32)


def scale_factor(latents: Array) -> Array:
    """1 / their standard deviation over all entries (n - 1): latents times it have unit variance for the diffusion."""
    return 1 / jnp.std(latents, ddof=1)
