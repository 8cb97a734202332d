"""The likelihood of sparse sequences, window by window (Nash et al. 2021, arXiv:2103.03841)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp

from jgen.dct.chunks import Chunks
from jgen.dct.images import DCTCodec
from jgen.dct.sequence import Layout, Tuples, count, decode, encode
from jgen.models.dctransformer import Logits
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree


class Apply(Protocol):
    def __call__(
        self, params: PyTree, window: Tuples, image: Array, chunk: Array, label: Array | None, /, key: Key | None = None
    ) -> Logits:
        """Logits of a window's tuples but the first, given the DCT image so far and the window's number.

        key: of the dropout in training; None outside of it.
        """
        ...


def log_prob(logits: Logits, tuples: Tuples, layout: Layout) -> Array:
    """log p [B, S] of tuples: of their channels, positions and values together; of a stop, of its channel alone."""
    half = len(layout.values) // 2
    indices = (tuples.channel, tuples.position, tuples.value + half - (tuples.value > 0))
    parts = [_picked(*pair) for pair in zip(logits, indices)]
    return parts[0] + jnp.where(tuples.channel < layout.channels, parts[1] + parts[2], 0.0)


def _picked(logits: Array, index: Array) -> Array:
    return jnp.take_along_axis(jax.nn.log_softmax(logits, -1), index[..., None], -1)[..., 0]


def chunk_log_prob(
    apply: Callable[..., Logits], params: PyTree, tuples: Tuples, k: Array, layout: Layout, chunks: Chunks, label: Array | None
) -> Array:
    """log p [B] of what windows k [B] predict of sequences [B, total], given all that came before."""
    window, image = chunks.window(tuples, k), decode(chunks.so_far(tuples, k, layout), layout)
    logits = apply(params, window, image, k, label)
    each = log_prob(logits, window.map(lambda x: x[:, 1:]), layout)
    return jnp.sum(jnp.where(chunks.predicted(k), each, 0.0), -1)


def sparse_nll(apply: Apply, codec: DCTCodec, chunks: Chunks, *, conditional: bool = False, whole: bool = False) -> LossFn:
    """-log p of quantised images, mean over the batch, in nats a number of the image; lossless it is not: `jgen.dct.jpeg`.

    One window of each image, drawn evenly among those it has and counted as many times, so that the mean is right; `whole`
    takes all of them, without dropout. Metrics: the same in bits, the tuples of an image, and the share of images that the
    windows cut.
    """
    layout = codec.layout

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        label = batch["label"] if conditional else None
        planes = codec.planes(batch["image"])
        tuples, number = encode(planes, layout, chunks.total), count(planes)
        needed = chunks.needed(number)

        def of(k: Array) -> Array:
            network = apply if whole else partial(apply, key=jax.random.fold_in(key, 1))
            return chunk_log_prob(network, params["net"], tuples, k, layout, chunks, label)

        if whole:
            found = jnp.sum(jax.lax.map(lambda k: of(jnp.full_like(needed, k)), jnp.arange(chunks.count)), 0)
        else:
            uniforms = jax.random.uniform(key, needed.shape)
            found = needed * of(jnp.minimum((uniforms * needed).astype(jnp.int32), needed - 1))
        value = -jnp.mean(found) / batch["image"][0].size
        cut = jnp.mean((number > chunks.total).astype(jnp.float32))
        return value, (extra, {"bits_per_dim": value / math.log(2), "tuples": jnp.mean(number), "cut": cut})

    return loss
