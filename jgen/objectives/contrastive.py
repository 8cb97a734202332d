"""Losses that bring images and their captions to one place among all others of a batch, and how well that went.

The similarity of two embeddings is the cosine of their angle. Functions take the whole batch, so under a sharded batch the
negatives are those of all devices.
"""

import jax
import jax.numpy as jnp
import optax

from jgen.types import Array

MAX_SCALE = 100.0
"""The largest factor of similarities (Radford et al. 2021, section 2.5)."""


def unit(x: Array) -> Array:
    """Rows [..., D] of length 1; a row of zeros stays one, and has no gradient."""
    squares = jnp.sum(jnp.square(x), -1, keepdims=True)
    return jnp.where(squares > 0, x * jax.lax.rsqrt(jnp.where(squares > 0, squares, 1.0)), 0.0)


def similarities(images: Array, texts: Array) -> Array:
    """Cosines [N, M] of embeddings [N, D] and [M, D]."""
    return unit(images) @ unit(texts).T


def info_nce(images: Array, texts: Array, scale: Array) -> Array:
    """The symmetric cross-entropy of which text belongs to an image [B, D], and which image to a text [B, D].

    scale: the inverse temperature. CLIP's loss (Radford et al. 2021, arXiv:2103.00020, figure 3): the mean of both directions.
    """
    logits, own = scale * similarities(images, texts), jnp.arange(len(images))
    rows = optax.softmax_cross_entropy_with_integer_labels(logits, own)
    columns = optax.softmax_cross_entropy_with_integer_labels(logits.T, own)
    return (jnp.mean(rows) + jnp.mean(columns)) / 2


def ranking(images: Array, texts: Array, margin: float) -> Array:
    """How far pairs [B, D] are from being more alike than all wrong pairs of the batch by a margin: hinges, of both directions.

    Kiros et al. 2014 (arXiv:1411.2539, section 2.3), but as a mean over the B (B - 1) wrong pairs, so that the batch's size
    changes no weight. 0 for a batch of one.
    """
    s = similarities(images, texts)
    own, wrong = jnp.diagonal(s), 1.0 - jnp.eye(len(s))
    hinges = jax.nn.relu(margin - own[:, None] + s) + jax.nn.relu(margin - own[None] + s)
    return jnp.sum(hinges * wrong) / max(len(s) * (len(s) - 1), 1)


def recall(similarity: Array, k: int) -> Array:
    """The share of rows [N, N] whose own column is among the k most similar ones; chance is k / N.

    Columns that tie with it count half as ahead of it, so that embeddings which are all alike find nothing.
    """
    own = jnp.diagonal(similarity)[:, None]
    ahead = jnp.sum(similarity > own, 1) + 0.5 * (jnp.sum(similarity == own, 1) - 1)
    return jnp.mean(ahead < k)
