"""Losses on the codes that an encoder gives: how far they lie from the mean, and from one another."""

import jax
import jax.numpy as jnp

from jgen.arrays import root
from jgen.types import Array


def w_norm(codes: Array, w_avg: Array | None = None) -> Array:
    """The mean over a batch of the 2-norm of codes [B, num_ws, D] less the mean code, all rows together.

    pSp's regulariser (Richardson et al. 2020, arXiv:2008.00951). w_avg: [num_ws, D], [D], or None for codes that are offsets.
    """
    offsets = codes if w_avg is None else codes - jnp.broadcast_to(w_avg, codes.shape[1:])[None]
    return jnp.mean(jnp.sqrt(jnp.sum(jnp.square(offsets), (1, 2))))


def delta_loss(codes: Array, stage: int) -> Array:
    """The sum over rows 1 to `stage` of codes [B, num_ws, D] of their mean 2-norm from row 0: e4e's regulariser.

    stage: how many rows have deltas of their own, 0 for none. A delta of zero has no gradient.
    """
    deltas = codes[:, 1 : stage + 1] - codes[:, :1]
    return jnp.sum(jnp.mean(root(jnp.sum(jnp.square(deltas), -1)), 0))


def encoder_adversarial_loss(logits: Array) -> Array:
    """The mean over all codes' logits of softplus(-logit), as e4e's encoder has against its discriminator of codes."""
    return jnp.mean(jax.nn.softplus(-logits))
