"""Scaled dot-product attention over the pixels of a feature map."""

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.types import Array


def attention(q: Array, k: Array, v: Array) -> Array:
    """softmax(q k^T / sqrt(c)) v for q, k, v [B, L, heads, c]; the softmax is computed in float32.

    Vaswani et al. 2017, eq. 1.
    """
    scale = q.shape[-1] ** -0.5
    logits = jnp.einsum("bqhc,bkhc->bhqk", q * scale, k, preferred_element_type=jnp.promote_types(q.dtype, jnp.float32))
    weights = jax.nn.softmax(logits, axis=-1).astype(v.dtype)
    return jnp.einsum("bhqk,bkhc->bqhc", weights, v)


def heads_of(channels: int, num_heads: int, head_channels: int | None) -> int:
    """How many heads: `num_heads`, or as many as make each `head_channels` wide. Raises UserError where uneven."""
    heads = num_heads if head_channels is None else channels // head_channels
    if heads < 1 or channels % heads or (head_channels and channels % head_channels):
        given = f"num_heads={num_heads}" if head_channels is None else f"head_channels={head_channels}"
        raise UserError(f"{given}: does not divide the {channels} channels of an attention; change either")
    return heads
