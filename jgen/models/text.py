"""Encoders of captions: of bytes, a small transformer (Vaswani et al. 2017, arXiv:1706.03762); of features, a layer."""

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.attention import attention, heads_of
from jgen.types import Array


class ByteEncoder(nn.Module):
    """Captions uint8 [B, L], filled up with zeros -> tokens [B, L, width]; an empty caption is all zeros."""

    width: int = 64
    depth: int = 2
    heads: int = 4

    @nn.compact
    def __call__(self, caption: Array) -> Array:
        init = nn.initializers.normal(0.02)
        places = self.param("position", init, (caption.shape[1], self.width))
        h = nn.Embed(256, self.width, embedding_init=init, name="bytes")(caption.astype(jnp.int32)) + places[None]
        for i in range(self.depth):
            y = nn.LayerNorm(name=f"norm_a_{i}")(h)
            q, k, v = jnp.split(nn.Dense(3 * self.width, name=f"qkv_{i}")(y), 3, -1)
            split = (*h.shape[:2], heads_of(self.width, self.heads, None), self.width // self.heads)
            y = attention(q.reshape(split), k.reshape(split), v.reshape(split)).reshape(h.shape)
            h = h + nn.Dense(self.width, name=f"out_{i}")(y)
            y = nn.gelu(nn.Dense(4 * self.width, name=f"mlp_in_{i}")(nn.LayerNorm(name=f"norm_m_{i}")(h)))
            h = h + nn.Dense(self.width, name=f"mlp_out_{i}")(y)
        return nn.LayerNorm(name="norm")(h)


class FeatureEncoder(nn.Module):
    """Features [B, L, D] of a language model that stays as it is (`jgen.data.captions`) -> tokens [B, L, width].

    Places without a token, and all of an empty caption's, are zeros.
    """

    width: int = 64

    @nn.compact
    def __call__(self, features: Array) -> Array:
        return nn.LayerNorm(name="norm")(nn.Dense(self.width, name="project")(features))
