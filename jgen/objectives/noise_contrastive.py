"""Noise contrastive estimation of a density ratio (Gutmann & Hyvarinen 2010), and the prior that it gives a VAE.

Aneja et al. 2020 (arXiv:2010.02917): the prior p(z) r(z) / Z, whose r is the ratio that a classifier D of the aggregate
posterior's latents against the base prior's finds, r = D / (1 - D): the exponential of its logit.
"""

import jax
import jax.numpy as jnp

from jgen.types import Array


def binary_nce(target: Array, base: Array) -> Array:
    """-log D of the target's draws - log(1 - D) of the base's, means over logits [B]; the logit log target / base is its least.

    With equal numbers of both, which is the paper's equation 5.
    """
    return jnp.mean(jax.nn.softplus(-target)) + jnp.mean(jax.nn.softplus(base))


def accuracy(target: Array, base: Array) -> Array:
    """The share of draws that the sign of a logit sorts rightly."""
    return 0.5 * (jnp.mean(target > 0) + jnp.mean(base < 0))


def log_normalizer(log_ratios: Array, axis: int = 0) -> Array:
    """log Z of log ratios at draws of the base, along an axis: log mean r. Few draws make it too small."""
    return jax.nn.logsumexp(log_ratios, axis) - jnp.log(log_ratios.shape[axis])
