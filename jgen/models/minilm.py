"""The BERT encoder (Devlin et al. 2018, arXiv:1810.04805) in the size of MiniLM (Wang et al. 2020, arXiv:2002.10957).

`jgen.convert.minilm` fills it from sentence-transformers' all-MiniLM-L6-v2.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.types import Array

EPSILON = 1e-12


class MiniLM(nn.Module):
    """Tokens int32 [B, L], the first being [CLS], and mask bool [B, L] of those that count -> features [B, L, width].

    Features where the mask is False mean nothing. L is at most `positions`.
    """

    vocabulary: int = 30522
    width: int = 384
    depth: int = 6
    heads: int = 12
    hidden: int = 1536
    positions: int = 512

    @nn.compact
    def __call__(self, tokens: Array, mask: Array) -> Array:
        words = nn.Embed(self.vocabulary, self.width, name="word")(tokens)
        places = nn.Embed(self.positions, self.width, name="position")(jnp.arange(tokens.shape[1]))[None]
        # Of the two kinds of sentence that BERT tells apart, all are of the first.
        kind = nn.Embed(2, self.width, name="type")(jnp.zeros((1, 1), jnp.int32))
        h = nn.LayerNorm(EPSILON, name="norm")(words + places + kind)
        for i in range(self.depth):
            attend = nn.MultiHeadDotProductAttention(self.heads, name=f"attention_{i}")
            h = nn.LayerNorm(EPSILON, name=f"norm_a_{i}")(h + attend(h, mask=mask[:, None, None]))
            y = nn.gelu(nn.Dense(self.hidden, name=f"mlp_in_{i}")(h), approximate=False)
            h = nn.LayerNorm(EPSILON, name=f"norm_m_{i}")(h + nn.Dense(self.width, name=f"mlp_out_{i}")(y))
        return h


def sentence(features: Array, mask: Array) -> Array:
    """The embedding of a sentence [B, width]: the mean of its features, of length 1, as sentence-transformers has it."""
    mean = jnp.sum(features * mask[..., None], 1) / jnp.sum(mask, 1, keepdims=True)
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
