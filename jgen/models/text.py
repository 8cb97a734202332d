"""Encoders of captions: of words, a small transformer (Vaswani et al. 2017, arXiv:1706.03762); of features, a layer."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.nn.attention import attention, heads_of
from jgen.types import Array

LETTERS = 12
"""Characters of a word whose places differ; all later ones count as the last of these."""
ZEROS = nn.initializers.zeros


def spelled(caption: Array) -> tuple[Array, Array]:
    """For captions uint8 [B, L], words apart by spaces and zeros behind them: every byte's place in its word, int32 [B, L],
    and the word it belongs to, float32 [B, L, (L + 1) // 2], all zeros for a space."""
    letter = (caption != 32) & (caption != 0)
    begins = letter & ~jnp.pad(letter, ((0, 0), (1, 0)))[:, :-1]
    index = jnp.arange(caption.shape[1])[None]
    place = index - jax.lax.cummax(jnp.where(begins, index, 0), axis=1)
    number = jnp.where(letter, jnp.cumsum(begins, axis=1) - 1, -1)
    return jnp.clip(place, 0, LETTERS - 1), jax.nn.one_hot(number, (caption.shape[1] + 1) // 2)


class WordEncoder(nn.Module):
    """Captions uint8 [B, L], filled up with zeros -> a token a word [B, (L + 1) // 2, width], zeros behind the last one.

    An empty caption is all zeros, and so are its tokens. A word is the sum of its letters' embeddings by their places. At first
    the transformer passes words on as they are, so that a word has an effect from the beginning.
    """

    width: int = 64
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, caption: Array) -> Array:
        places, words = spelled(caption)
        table = self.param("letters", nn.initializers.normal(1.0), (LETTERS, 256, self.width))
        h = jnp.einsum("blw,blc->bwc", words, table[places, caption.astype(jnp.int32)])
        h = h + self.param("position", nn.initializers.normal(0.3), h.shape[1:])[None]
        for i in range(self.depth):
            y = nn.LayerNorm(name=f"norm_a_{i}")(h)
            q, k, v = jnp.split(nn.Dense(3 * self.width, name=f"qkv_{i}")(y), 3, -1)
            split = (*h.shape[:2], heads_of(self.width, self.heads, None), self.width // self.heads)
            y = attention(q.reshape(split), k.reshape(split), v.reshape(split)).reshape(h.shape)
            h = h + nn.Dense(self.width, kernel_init=ZEROS, name=f"out_{i}")(y)
            y = nn.gelu(nn.Dense(4 * self.width, name=f"mlp_in_{i}")(nn.LayerNorm(name=f"norm_m_{i}")(h)))
            h = h + nn.Dense(self.width, kernel_init=ZEROS, name=f"mlp_out_{i}")(y)
        return nn.LayerNorm(name="norm")(h) * jnp.any(words > 0, 1)[..., None]


class FeatureEncoder(nn.Module):
    """Features [B, L, D] of a language model that stays as it is (`jgen.data.captions`) -> tokens [B, L, width].

    Places without a token, and all of an empty caption's, are zeros, and stay so.
    """

    width: int = 64

    @nn.compact
    def __call__(self, features: Array) -> Array:
        tokens = nn.LayerNorm(name="norm")(nn.Dense(self.width, name="project")(features))
        return tokens * jnp.any(features != 0, -1, keepdims=True)
