"""Objectives of VQ-VAEs: reconstruction, commitment, and a codebook trained by a gradient or by moving averages.

van den Oord et al. 2017 (arXiv:1711.00937), eq. 3 and appendix A.1. The moving averages are Sonnet's, whose biases are
taken out; `debias=False` gives those of rosinality's code, in which codes that are not used run away.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.models.vqvae import Quantized
from jgen.objectives.likelihood import Likelihood, discretized_logistic
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

LOG_SCALES = np.linspace(-5, -1, 33)
"""Scales among which `residual` chooses that of the errors: from under a level to a sixth of the whole range."""


class Codebook(NamedTuple):
    """A codebook that follows its inputs; a pytree for `extra`."""

    vectors: Array
    """[codes, D]."""
    size: Array
    """[codes]: moving average of how many inputs each code takes."""
    total: Array
    """[codes, D]: moving average of their sums."""
    updates: Array
    """int32."""


def new_codebook(key: Key, codes: int, dim: int) -> Codebook:
    """Normal vectors, averages at zero."""
    if codes < 2 or dim < 1:
        raise UserError(f"codes={codes}, dim={dim}: must be at least 2 and 1")
    vectors = jax.random.normal(key, (codes, dim))
    return Codebook(vectors, jnp.zeros(codes), jnp.zeros((codes, dim)), jnp.zeros((), jnp.int32))


def update(book: Codebook, q: Quantized, decay: float = 0.99, eps: float = 1e-5, debias: bool = True) -> Codebook:
    """The codebook after a batch: each code moves to the average of the inputs it took.

    Sums run over the whole batch, on however many devices it lies. The sizes are smoothed by eps (Laplace).
    """
    codes, z = q.codes.reshape(-1), q.z.reshape(-1, q.z.shape[-1])
    taken = jax.nn.one_hot(codes, len(book.size), dtype=z.dtype)
    size = book.size + (1 - decay) * (jnp.sum(taken, 0) - book.size)
    total = book.total + (1 - decay) * (jnp.matmul(taken.T, z, precision=lax.Precision.HIGHEST) - book.total)
    updates = book.updates + 1
    share = 1 - decay ** updates.astype(z.dtype) if debias else 1.0
    count = jnp.sum(size / share)
    smooth = (size / share + eps) / (count + len(size) * eps) * count
    return Codebook(total / share / smooth[:, None], size, total, updates)


def revive(book: Codebook, q: Quantized, rows: Array, least: float = 0.01, decay: float = 0.99) -> Codebook:
    """Codes that take less than `least` of an even share are set on inputs of this batch: those at `rows` [codes].

    Their averages start again from one input each (the restarts of Jukebox, Dhariwal et al. 2020, arXiv:2005.00341).
    """
    z = q.z.reshape(-1, q.z.shape[-1])[rows]
    share = 1 - decay ** book.updates.astype(z.dtype)
    even = jnp.sum(book.size) / len(book.size)
    dead = book.size < least * even
    size = jnp.where(dead, share, book.size)
    total = jnp.where(dead[:, None], share * z, book.total)
    return Codebook(jnp.where(dead[:, None], z, book.vectors), size, total, book.updates)


def perplexity(codes: Array, count: int) -> Array:
    """exp of the entropy of the codes of a batch: how many are in use, evenly counted."""
    p = jnp.bincount(codes.reshape(-1), length=count) / codes.size
    return jnp.exp(-jnp.sum(p * jnp.log(p + 1e-10)))


def commitment(q: Quantized) -> Array:
    """Mean squared distance of the inputs from their codes, whose gradient goes to the inputs."""
    return jnp.mean(jnp.square(q.z - lax.stop_gradient(q.vectors)))


def codebook_loss(q: Quantized) -> Array:
    """The codes, with a gradient that reaches them."""
    return jnp.mean(jnp.square(lax.stop_gradient(q.z) - q.vectors))


def vqvae(
    apply: Callable[..., tuple[Array, list[Quantized]]],
    *,
    player: str = "net",
    beta: float = 0.25,
    ema: bool = True,
    decay: float = 0.99,
    dead: float = 0.01,
    train: bool = True,
) -> LossFn:
    """Mean squared error + beta x commitment, of apply(params, x, codebooks) -> (reconstruction, levels).

    ema: the codebooks are extra["codebooks"], a list of Codebook, and are updated after they were used; else they are
    params[player]["codebooks"] and a codebook loss trains them. dead > 0 revives codes that take less than this share of
    an even one. Metrics: the losses; perplexity and usage (share of codes in the batch) of each level.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x = batch["image"]
        books = extra["codebooks"] if ema else params[player]["codebooks"]
        vectors = [book.vectors if ema else book for book in books]
        out, levels = apply(params[player], x, vectors)
        reconstruction = jnp.mean(jnp.square(out - x))
        committed = jnp.sum(jnp.stack([commitment(q) for q in levels]))
        value = reconstruction + beta * committed
        if not ema:
            value = value + jnp.sum(jnp.stack([codebook_loss(q) for q in levels]))
        elif train:
            extra = {**extra, "codebooks": [_follow(*parts) for parts in zip(books, levels, jax.random.split(key, len(books)))]}
        metrics = {"reconstruction": reconstruction, "commitment": committed}
        for i, (q, v) in enumerate(zip(levels, vectors)):
            used = jnp.bincount(q.codes.reshape(-1), length=len(v)) > 0
            metrics |= {f"perplexity_{i}": perplexity(q.codes, len(v)), f"usage_{i}": jnp.mean(used)}
        return value, (extra, metrics)

    def _follow(book: Codebook, q: Quantized, key: Key) -> Codebook:
        q = jax.tree.map(lax.stop_gradient, q)
        book = update(book, q, decay)
        if not dead:
            return book
        return revive(book, q, jax.random.randint(key, (len(book.size),), 0, q.codes.size), dead, decay)

    return loss


def prior(
    applies: Sequence[Callable[..., Array]],
    codes: Callable[[Params, Extra, Array], Sequence[Array]],
    known: Callable[[Params, Extra, Sequence[Array], int], Mapping[str, Array]],
    law: Likelihood,
    *,
    player: str = "prior",
    conditional: bool = False,
) -> LossFn:
    """-log p of a frozen autoencoder's codes, the mean over a level's codes, summed over the levels, in nats.

    codes(params, extra, images) -> int32 [B, h, w] a level, coarse to fine; known(params, extra, codes, level) -> what
    level's network is given of the coarser ones; applies: (params[player][level], codes [B, h, w, 1], label, **known)
    -> outputs of `law`, a network a level. Metrics: nats_per_code_I of each level.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        found = lax.stop_gradient(codes(params, extra, batch["image"]))
        label, metrics = batch["label"] if conditional else None, {}
        for i, (apply, own, level) in enumerate(zip(applies, params[player], found)):
            given = level[..., None]
            outputs = apply(own, given, label, **known(params, extra, found, i))
            metrics[f"nats_per_code_{i}"] = -jnp.mean(law.log_prob(outputs, given))
        return sum(metrics.values(), jnp.zeros(())), (extra, metrics)

    return loss


def residual(reconstruction: Array, x: Array) -> Array:
    """-log p(x | reconstruction) of 8-bit images in [-1, 1], in nats an image, for each of LOG_SCALES [S].

    p is a discretised logistic about the reconstruction, of one scale for every value of every image. With the nats of the
    codes it is the length of a two-part code, a bound of -log p(x): the codes of an image are but one of the ways to it.
    """

    def nats(log_scale: Array) -> Array:
        each = discretized_logistic(x, reconstruction, log_scale, 1 / 255, float(np.log(127.5)))
        return -jnp.sum(each) / len(x)

    return lax.map(nats, jnp.asarray(LOG_SCALES, jnp.float32))


def check_codes(codes: Any, count: int, grid: Sequence[int] = ()) -> None:
    """Raises UserError for indices outside of a codebook of `count`, or another grid than the decoder's."""
    codes = np.asarray(codes)
    if not np.issubdtype(codes.dtype, np.integer) and not np.array_equal(codes, np.round(codes)):
        raise UserError(f"codes: {codes.dtype} with fractions; must be whole numbers")
    if codes.size and (codes.min() < 0 or codes.max() >= count):
        raise UserError(f"codes: from {codes.min():g} to {codes.max():g}; the codebook has 0 to {count - 1}")
    if grid and codes.shape[1:3] != tuple(grid):
        raise UserError(f"codes: a grid of {codes.shape[1:3]}; the autoencoder's is {tuple(grid)}")
