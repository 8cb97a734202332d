"""The U-Net of guided diffusion (ADM; Dhariwal & Nichol 2021), and its noisy-image classifier.

DDPM's U-Net (Ho et al. 2020) is a setting of it: no scale-shift norm, no residual up/down blocks, one attention head
at 16x16. Submodules carry the names of the reference implementation (`input_blocks_3_0` is `input_blocks.3.0`), so
that official weights map onto them by name alone. Activations are NHWC; parameters are float32 whatever `dtype` is.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.linear import default_embed_init

from jgen.errors import UserError
from jgen.nn.attention import attention, heads_of
from jgen.nn.barrier import settled
from jgen.nn.conv import Conv3x3
from jgen.nn.dense import Dense
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm
from jgen.nn.precision import at_least_float32
from jgen.nn.transformer import SpatialTransformer
from jgen.types import Array

ZEROS = nn.initializers.zeros
Dtype = jnp.dtype | None


def conv3x3(features: int, name: str, dtype: Dtype, stride: int = 1, zero: bool = False, up: bool = False) -> Conv3x3:
    """A 3x3 convolution; zero=True starts it at 0, up=True is of the image upsampled by nearest neighbour."""
    return Conv3x3(features, stride, dtype, ZEROS if zero else nn.initializers.lecun_normal(), name=name, up=up)


def upsample(x: Array) -> Array:
    """Nearest neighbour, twice the height and width."""
    b, h, w, c = x.shape
    return jnp.broadcast_to(x[:, :, None, :, None, :], (b, h, 2, w, 2, c)).reshape(b, 2 * h, 2 * w, c)


def downsample(x: Array) -> Array:
    """Mean of each 2x2 square."""
    b, h, w, c = x.shape
    if h % 2 or w % 2:
        raise UserError(f"image of {h}x{w} inside the U-Net: height and width must be even at every level")
    return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))


def keep(x: Array) -> Array:
    """An image of the size that came."""
    return x


class Resample(nn.Module):
    """A change of size without weights, which has the name of the convolution that could stand there."""

    change: Callable[[Array], Array]

    def __call__(self, x: Array) -> Array:
        return self.change(x)


class ResBlock(nn.Module):
    """Residual block conditioned on an embedding, optionally resampling between its norm and its first convolution."""

    features: int
    resample: Callable[[Array], Array] = keep
    scale_shift_norm: bool = False
    dropout: float = 0.0
    groups: int = 32
    epsilon: float = 1e-5
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array, emb: Array, train: bool) -> Array:
        def norm(name: str) -> GroupNorm:
            return GroupNorm(self.groups, self.epsilon, name=name)

        width = self.features * (2 if self.scale_shift_norm else 1)
        cond = Dense(width, dtype=self.dtype, name="emb_layers_1")(nn.silu(emb))
        up, down = self.resample is upsample, downsample if self.resample is downsample else None
        conv = conv3x3(self.features, "in_layers_2", self.dtype, up=up)
        h = conv(x, norm("in_layers_0").affine(x), down, None if self.scale_shift_norm else cond)
        affine = norm("out_layers_0").affine(h)
        if self.scale_shift_norm:
            scale, shift = jnp.split(cond, 2, axis=-1)
            affine = affine.then(1 + scale, shift)
        drop = nn.Dropout(self.dropout, deterministic=False) if self.dropout and train else None
        h = conv3x3(self.features, "out_layers_3", self.dtype, zero=True)(h, affine, drop)
        x = self.resample(x)
        if x.shape[-1] != self.features:
            x = Dense(self.features, dtype=self.dtype, name="skip_connection")(x)
        return settled(x + h)


class AttentionBlock(nn.Module):
    """Self-attention over all pixels, with a residual connection."""

    num_heads: int = 1
    head_channels: int | None = None
    groups: int | None = 32
    """None leaves the norm out."""
    epsilon: float = 1e-5
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        heads = heads_of(c, self.num_heads, self.head_channels)
        y = x if self.groups is None else GroupNorm(self.groups, self.epsilon, self.dtype, name="norm")(x)
        y = y.reshape(b, h * w, c)
        qkv = Dense(3 * c, dtype=self.dtype, name="qkv")(y).reshape(b, h * w, 3, heads, c // heads)
        y = attention(qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(b, h * w, c)
        return x + Dense(c, dtype=self.dtype, kernel_init=ZEROS, name="proj_out")(y).reshape(x.shape)


class _Blocks(nn.Module):
    """The fields and the descending half that the U-Net and the classifier share."""

    channels: int = 128
    """Width of the first level."""
    out_channels: int = 3
    """Channels of the output, or classes of the classifier."""
    num_res_blocks: int = 2
    channel_mult: tuple[float, ...] = (1, 2, 2, 2)
    """Width of each level, as multiples of `channels`; each but the last halves the height and width."""
    attention_resolutions: tuple[int, ...] = (2,)
    """Levels with attention, as downsampling factors (1, 2, 4, ...); the middle always has it."""
    num_classes: int = 0
    """0 for an unconditional network."""
    label_std: float = 0.0
    """Standard deviation of the classes' embeddings at the start; 0: one over the root of their width."""
    num_heads: int = 1
    head_channels: int | None = None
    """Channels of a head, in place of `num_heads`."""
    scale_shift_norm: bool = False
    resblock_updown: bool = False
    """Resample in residual blocks rather than by a strided convolution and an upsampling one."""
    conv_resample: bool = True
    """Without resblock_updown: resample by convolutions rather than by means of 2x2 squares and repeated pixels."""
    dropout: float = 0.0
    groups: int = 32
    dtype: Dtype = None
    remat: bool = False
    """Recompute each residual and attention block in the backward pass."""
    transformer_depth: int = 0
    """Latent diffusion's: transformers of so many blocks, which attend to a context too, in place of attention."""
    epsilon: float = 1e-5
    """Epsilon of the norms."""
    asymmetric: bool = False
    """Strided convolutions padded right and below only, as in DDPM's own code and diffusers."""
    time_endpoint: bool = False
    """Frequencies of the time embedding reach the longest period, as in DDPM's own code and diffusers."""
    up_heads: int | None = None
    """Heads of the attention on the way up, where `head_channels` does not say them; None: num_heads."""
    middle_attention: bool = True
    middle_groups: int | None = 0
    """Groups of the norm before the middle's attention, None for no norm; 0: `groups`."""
    label_as: Literal["class", "time", "vector"] = "class"
    """The kind of a label, where num_classes is above 0: a class, a number embedded as the time is, or a vector
    [B, 4 * channels] that is added to the embedding; the latter two as in diffusers."""

    def _res(self, features: int, name: str, resample: Callable[[Array], Array] = keep) -> nn.Module:
        block = nn.remat(ResBlock, static_argnums=(3,)) if self.remat else ResBlock
        norm = (self.groups, self.epsilon)
        return block(features, resample, self.scale_shift_norm, self.dropout, *norm, self.dtype, name=name)

    def _attend(self, h: Array, name: str, context: Array | None = None, *, up: bool = False) -> Array:
        if self.transformer_depth:
            heads = heads_of(h.shape[-1], self.num_heads, self.head_channels)
            block = nn.remat(SpatialTransformer) if self.remat else SpatialTransformer
            assert context is not None
            return block(heads, self.transformer_depth, self.groups, self.dtype, name=name)(h, context)
        block = nn.remat(AttentionBlock) if self.remat else AttentionBlock
        heads = self.up_heads if up and self.up_heads is not None else self.num_heads
        groups = self.middle_groups if name.startswith("middle") and self.middle_groups != 0 else self.groups
        return block(heads, self.head_channels, groups, self.epsilon, self.dtype, name=name)(h)

    def _embed(self, t: Array, label: Array | None) -> Array:
        width = 4 * self.channels

        def embed(numbers: Array, name: str) -> Array:
            emb = timestep_embedding(numbers, self.channels, endpoint=self.time_endpoint)
            emb = Dense(width, dtype=self.dtype, name=f"{name}_0")(emb)
            return Dense(width, dtype=self.dtype, name=f"{name}_2")(nn.silu(emb))

        emb = embed(t, "time_embed")
        if (label is None) == bool(self.num_classes):
            given = "no label" if label is None else "a label"
            raise UserError(f"label: the network has num_classes={self.num_classes} but {given} was given")
        if label is None:
            return emb
        if self.label_as == "vector":
            return emb + label
        if self.label_as == "time":
            return emb + embed(label, "label_emb")
        init = nn.initializers.normal(self.label_std) if self.label_std else default_embed_init
        return emb + nn.Embed(self.num_classes, width, dtype=self.dtype, embedding_init=init, name="label_emb")(label)

    def _descend(self, x: Array, emb: Array, train: bool, context: Array | None = None) -> list[Array]:
        """Every feature map that the ascending half will read, first to last."""
        first = self.channels if self.transformer_depth else int(self.channel_mult[0] * self.channels)
        h = conv3x3(first, "input_blocks_0_0", self.dtype)(x)
        features, factor = [h], 1
        for level, mult in enumerate(self.channel_mult):
            for _ in range(self.num_res_blocks):
                name = f"input_blocks_{len(features)}"
                h = self._res(int(mult * self.channels), f"{name}_0")(h, emb, train)
                if factor in self.attention_resolutions:
                    h = self._attend(h, f"{name}_1", context)
                features.append(h)
            if level < len(self.channel_mult) - 1:
                name = f"input_blocks_{len(features)}_0"
                if self.resblock_updown:
                    h = self._res(int(mult * self.channels), name, downsample)(h, emb, train)
                elif not self.conv_resample:
                    h = Resample(downsample, name=f"{name}_op")(h)
                else:
                    op = Conv3x3(int(mult * self.channels), 2, self.dtype, asymmetric=self.asymmetric, name=f"{name}_op")
                    h = op(h)
                features.append(h)
                factor *= 2
        return features

    def _middle(self, h: Array, emb: Array, train: bool, context: Array | None = None) -> Array:
        h = self._res(h.shape[-1], "middle_block_0")(h, emb, train)
        h = self._attend(h, "middle_block_1", context) if self.middle_attention else h
        return self._res(h.shape[-1], "middle_block_2")(h, emb, train)


class UNet(_Blocks):
    """x_t [B, H, W, C], t [B] (and label int [B]) -> [B, H, W, out_channels] in float32.

    context [B, tokens, D]: with transformer_depth, what they attend to; with pool_context its mean, normalised, is added to
    the embedding of the time. out_channels = 2C for a network that learns its variance. H and W must be divisible by
    2^(levels - 1).
    """

    pool_context: bool = False
    """With transformer_depth: the embedding hears the context too, as in Imagen (Saharia et al. 2022, arXiv:2205.11487)."""

    @nn.compact
    def __call__(
        self, x: Array, t: Array, label: Array | None = None, *, context: Array | None = None, train: bool = False
    ) -> Array:
        _check_size(x, len(self.channel_mult))
        if (context is None) == bool(self.transformer_depth):
            given = "none" if context is None else "one"
            raise UserError(f"context: the network has transformer_depth={self.transformer_depth} but {given} was given")
        emb = self._embed(t, label)
        if self.pool_context and context is not None:
            pooled = nn.LayerNorm(name="context_norm")(jnp.mean(context, 1))
            emb = emb + Dense(emb.shape[-1], dtype=self.dtype, name="context_emb")(pooled)
        skips = self._descend(x, emb, train, context)
        h = self._middle(skips[-1], emb, train, context)
        factor, index = 2 ** (len(self.channel_mult) - 1), 0
        for level, mult in reversed(list(enumerate(self.channel_mult))):
            for i in range(self.num_res_blocks + 1):
                name = f"output_blocks_{index}"
                h = self._res(int(mult * self.channels), f"{name}_0")(jnp.concatenate([h, skips.pop()], -1), emb, train)
                parts = 1
                if factor in self.attention_resolutions:
                    h, parts = self._attend(h, f"{name}_1", context, up=True), 2
                if level and i == self.num_res_blocks:
                    if self.resblock_updown:
                        h = self._res(int(mult * self.channels), f"{name}_{parts}", upsample)(h, emb, train)
                    elif not self.conv_resample:
                        h = Resample(upsample, name=f"{name}_{parts}_conv")(h)
                    else:
                        h = conv3x3(int(mult * self.channels), f"{name}_{parts}_conv", self.dtype, up=True)(h)
                    factor //= 2
                index += 1
        affine = GroupNorm(self.groups, self.epsilon, name="out_0").affine(h)
        return at_least_float32(conv3x3(self.out_channels, "out_2", self.dtype, zero=True)(h, affine))


class SuperResUNet(UNet):
    """The U-Net given a low-resolution image besides, resized bilinearly and joined to x_t channel by channel."""

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, x: Array, t: Array, label: Array | None = None, *, low_res: Array, train: bool = False
    ) -> Array:
        # The reference resizes without antialiasing, with half-pixel centres.
        shape = (*x.shape[:3], low_res.shape[-1])
        resized = jax.image.resize(low_res, shape, "bilinear", antialias=False)
        return super().__call__(jnp.concatenate([x, resized], -1), t, label, train=train)


class AttentionPool(nn.Module):
    """CLIP's pooling: the mean and the pixels as tokens, one attention layer, the mean's output. [B,H,W,C] -> [B,out]."""

    out_features: int
    head_channels: int
    dtype: Dtype = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        b, h, w, c = x.shape
        heads = heads_of(c, 1, self.head_channels)
        tokens = x.reshape(b, h * w, c)
        tokens = jnp.concatenate([tokens.mean(1, keepdims=True), tokens], axis=1)
        position = self.param("positional_embedding", nn.initializers.normal(c**-0.5), (c, h * w + 1))
        tokens = tokens + position.T[None].astype(tokens.dtype)
        qkv = Dense(3 * c, dtype=self.dtype, name="qkv_proj")(tokens).reshape(b, -1, 3, heads, c // heads)
        pooled = attention(qkv[:, :1, 0], qkv[:, :, 1], qkv[:, :, 2]).reshape(b, c)
        return Dense(self.out_features, dtype=self.dtype, name="c_proj")(pooled)


class Classifier(_Blocks):
    """ADM's classifier of noisy images: the descending half, then a pool. x_t, t -> logits [B, out_channels].

    pool: "attention" (needs `head_channels`), "adaptive" (global mean, then a linear layer), or "spatial" and "spatial_v2"
    (two linear layers of the means of every block's features; the latter with a norm between them).
    """

    pool: str = "attention"

    @nn.compact
    def __call__(self, x: Array, t: Array, *, train: bool = False) -> Array:
        _check_size(x, len(self.channel_mult))
        emb = self._embed(t, None)
        features = self._descend(x, emb, train)
        h = self._middle(features[-1], emb, train)
        if self.pool in ("spatial", "spatial_v2"):
            means = jnp.concatenate([f.mean((1, 2)) for f in (*features, h)], -1)
            y = Dense(2048, dtype=self.dtype, name="out_0")(means)
            if self.pool == "spatial":
                return at_least_float32(Dense(self.out_channels, dtype=self.dtype, name="out_2")(nn.relu(y)))
            y = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="out_1")(y))
            return at_least_float32(Dense(self.out_channels, dtype=self.dtype, name="out_3")(y))
        h = nn.silu(GroupNorm(self.groups, dtype=self.dtype, name="out_0")(h))
        if self.pool == "attention":
            if self.head_channels is None:
                raise UserError("head_channels=None: attention pooling needs the width of a head")
            return at_least_float32(AttentionPool(self.out_channels, self.head_channels, self.dtype, name="out_2")(h))
        if self.pool == "adaptive":
            return at_least_float32(Dense(self.out_channels, dtype=self.dtype, name="out_3")(h.mean((1, 2))))
        raise UserError(f"pool={self.pool}: must be attention, adaptive, spatial or spatial_v2")


def _check_size(x: Array, levels: int) -> None:
    multiple = 2 ** (levels - 1)
    if x.shape[1] % multiple or x.shape[2] % multiple:
        raise UserError(
            f"image of {x.shape[1]}x{x.shape[2]}: {levels} levels need multiples of {multiple} pixels, or fewer levels"
        )
