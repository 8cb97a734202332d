"""The spatial transformer of latent diffusion (Rombach et al. 2022, arXiv:2112.10752, section 3.3): attention among pixels,
then to the tokens of a context, then a gated MLP."""

import flax.linen as nn
import jax.numpy as jnp

from jgen.nn.attention import attention
from jgen.nn.barrier import settled
from jgen.nn.dense import Dense
from jgen.nn.norm import GroupNorm
from jgen.types import Array

Dtype = jnp.dtype | None
ZEROS = nn.initializers.zeros


class CrossAttention(nn.Module):
    """x [B, L, C] attends to context [B, M, D]."""

    heads: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        c = x.shape[-1]

        def project(y: Array, name: str) -> Array:
            y = Dense(c, use_bias=False, dtype=self.dtype, name=name)(y)
            return y.reshape(*y.shape[:2], self.heads, c // self.heads)

        y = attention(project(x, "to_q"), project(context, "to_k"), project(context, "to_v"))
        return Dense(c, dtype=self.dtype, name="to_out_0")(y.reshape(x.shape))


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention and GEGLU, each after a layer norm and beside a residual connection."""

    heads: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        y = norm("norm1")(x)
        x = settled(x + CrossAttention(self.heads, self.dtype, name="attn1")(y, y))
        x = settled(x + CrossAttention(self.heads, self.dtype, name="attn2")(norm("norm2")(x), context))
        inner = 4 * x.shape[-1]
        value, gate = jnp.split(Dense(2 * inner, dtype=self.dtype, name="ff_net_0_proj")(norm("norm3")(x)), 2, -1)
        y = settled(value * nn.gelu(gate, approximate=False))
        return settled(x + Dense(x.shape[-1], dtype=self.dtype, name="ff_net_2")(y))


class SpatialTransformer(nn.Module):
    """Feature maps [B, H, W, C] and a context [B, tokens, D] -> feature maps, residual; starts as the identity."""

    heads: int
    depth: int = 1
    groups: int = 32
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, context: Array) -> Array:
        b, height, width, c = x.shape
        h = GroupNorm(self.groups, 1e-6, dtype=self.dtype, name="norm")(x).reshape(b, height * width, c)
        h = Dense(c, dtype=self.dtype, name="proj_in")(h)
        for i in range(self.depth):
            h = TransformerBlock(self.heads, self.dtype, name=f"transformer_blocks_{i}")(h, context)
        return settled(x + Dense(c, kernel_init=ZEROS, dtype=self.dtype, name="proj_out")(h).reshape(x.shape))
