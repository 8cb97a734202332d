"""Diffusion transformer (DiT; Peebles & Xie 2022, arXiv:2212.09748): patches as tokens, conditioned by adaptive layer norm.

Submodules carry the names of the reference (`blocks_3` is `blocks.3`). Position codes are fixed sines of column and row.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.attention import attention
from jgen.nn.barrier import settled
from jgen.nn.dense import Dense
from jgen.nn.embed import timestep_embedding
from jgen.nn.plain import Conv
from jgen.nn.precision import at_least_float32
from jgen.types import Array, Dtype

ZEROS = nn.initializers.zeros
GLOROT = nn.initializers.glorot_uniform()
FREQUENCIES = 256


def position_code(height: int, width: int, channels: int) -> np.ndarray:
    """[height * width, channels]: the first half of the channels codes the column, the second the row; each sines, then
    cosines."""
    if channels % 4:
        raise UserError(f"width={channels}: position codes need a multiple of 4")
    frequencies = 10000.0 ** -(np.arange(channels // 4) / (channels // 4))

    def code(places: np.ndarray) -> np.ndarray:
        angles = places.reshape(-1, 1) * frequencies[None]
        return np.concatenate([np.sin(angles), np.cos(angles)], 1)

    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.concatenate([code(columns), code(rows)], 1).astype(np.float32)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
    return x * (1 + scale[:, None]) + shift[:, None]


class Embedder(nn.Module):
    """The conditioning [B, width] of times [B], labels int [B], of which `classes` means none, and tokens [B, L, D], by their
    mean."""

    width: int
    classes: int
    endpoint: bool = False
    """Frequencies reach the longest period, as in diffusers' port."""

    @nn.compact
    def __call__(self, t: Array, label: Array | None, context: Array | None = None) -> Array:
        emb = timestep_embedding(t, FREQUENCIES, endpoint=self.endpoint)
        init = nn.initializers.normal(0.02)
        emb = Dense(self.width, kernel_init=init, name="t_embedder_mlp_0")(emb)
        emb = Dense(self.width, kernel_init=init, name="t_embedder_mlp_2")(nn.silu(emb))
        if context is not None:
            emb = emb + Dense(self.width, kernel_init=init, name="context_embedder")(jnp.mean(context, 1))
        if not self.classes:
            return emb
        label = jnp.full(t.shape, self.classes, jnp.int32) if label is None else label
        return emb + nn.Embed(self.classes + 1, self.width, embedding_init=init, name="y_embedder")(label)


class Block(nn.Module):
    """Attention and MLP, each shifted, scaled and gated by the conditioning; a block starts as the identity (adaLN-Zero)."""

    heads: int
    mlp_ratio: float
    dtype: Dtype = None
    mlp_epsilon: float = 1e-6
    exact_gelu: bool = False

    @nn.compact
    def __call__(self, x: Array, condition: Array) -> Array:
        b, length, c = x.shape
        parts = Dense(6 * c, kernel_init=ZEROS, dtype=self.dtype, name="adaLN_modulation_1")(nn.silu(condition))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(parts, 6, -1)
        y = modulate(_norm(self.dtype)(x), shift_a, scale_a)
        qkv = Dense(3 * c, kernel_init=GLOROT, dtype=self.dtype, name="attn_qkv")(y)
        q, k, v = jnp.moveaxis(qkv.reshape(b, length, 3, self.heads, c // self.heads), 2, 0)
        y = attention(q, k, v).reshape(x.shape)
        x = settled(x + gate_a[:, None] * Dense(c, kernel_init=GLOROT, dtype=self.dtype, name="attn_proj")(y))
        y = modulate(_norm(self.dtype, self.mlp_epsilon)(x), shift_m, scale_m)
        y = Dense(int(c * self.mlp_ratio), kernel_init=GLOROT, dtype=self.dtype, name="mlp_fc1")(y)
        y = Dense(c, kernel_init=GLOROT, dtype=self.dtype, name="mlp_fc2")(nn.gelu(y, approximate=not self.exact_gelu))
        return settled(x + gate_m[:, None] * y)


def _norm(dtype: Dtype, epsilon: float = 1e-6) -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=epsilon, use_bias=False, use_scale=False, dtype=dtype)


class DiT(nn.Module):
    """x [B, H, W, C], t [B], label int [B] (or None) -> [B, H, W, out_channels]. H and W must be divisible by the patch.

    context [B, L, D]: tokens of a caption, whose mean is added to the conditioning; the paper's has none.
    """

    out_channels: int = 3
    width: int = 384
    depth: int = 12
    heads: int = 6
    patch: int = 2
    classes: int = 0
    """0 for an unconditional network; label `classes` means none."""
    mlp_ratio: float = 4.0
    own_embedders: bool = False
    """Every block has an embedder of its own, as in diffusers' port."""
    dtype: Dtype = None
    remat: bool = False
    """Keep the blocks' inputs alone for the backward pass."""
    mlp_epsilon: float = 1e-6
    """Epsilon of the norms before the MLPs, which diffusers' port has an option for."""
    exact_gelu: bool = False
    """The MLPs' GELU is exact rather than approximated by a hyperbolic tangent."""

    @nn.compact
    def __call__(
        self, x: Array, t: Array, label: Array | None = None, *, context: Array | None = None, train: bool = False
    ) -> Array:
        b, height, width, _ = x.shape
        p = self.patch
        if height % p or width % p or self.width % self.heads:
            raise UserError(
                f"image of {height}x{width}, width={self.width}: must be divisible by patch={p} and heads={self.heads}"
            )
        if label is not None and not self.classes:
            raise UserError("label: the network has no classes but a label was given")
        rows, columns = height // p, width // p
        h = Conv(self.width, (p, p), (p, p), kernel_init=GLOROT, dtype=self.dtype, name="x_embedder_proj")(x)
        h = h.reshape(b, rows * columns, self.width) + jnp.asarray(position_code(rows, columns, self.width))[None]

        def embed(name: str) -> Array:
            return Embedder(self.width, self.classes, self.own_embedders, name=name)(t, label, context)

        condition, block = embed("embedder_0" if self.own_embedders else "embedder"), nn.remat(Block) if self.remat else Block
        for i in range(self.depth):
            own = embed(f"embedder_{i}") if self.own_embedders and i else condition
            how = (self.heads, self.mlp_ratio, self.dtype, self.mlp_epsilon, self.exact_gelu)
            h = block(*how, name=f"blocks_{i}")(h, own)
        last = Dense(2 * self.width, kernel_init=ZEROS, dtype=self.dtype, name="final_layer_adaLN_modulation_1")
        shift, scale = jnp.split(last(nn.silu(condition)), 2, -1)
        h = modulate(_norm(self.dtype)(h), shift, scale)
        h = Dense(p * p * self.out_channels, kernel_init=ZEROS, dtype=self.dtype, name="final_layer_linear")(h)
        return at_least_float32(unpatchify(h, (rows, columns), p))


def unpatchify(tokens: Array, grid: Sequence[int], patch: int) -> Array:
    """[B, rows * columns, patch * patch * C] -> [B, rows * patch, columns * patch, C]."""
    b, (rows, columns) = len(tokens), grid
    x = tokens.reshape(b, rows, columns, patch, patch, -1)
    return jnp.einsum("brcpqk->brpcqk", x).reshape(b, rows * patch, columns * patch, -1)
