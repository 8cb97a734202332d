"""CLIP (Radford et al. 2021, arXiv:2103.00020) with a vision transformer: images and texts in one space.

`jgen.convert.clip` fills it from the authors' weights. The towers with a ResNet are not built.
"""

from collections.abc import Sequence
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.plain import Conv
from jgen.types import Array

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of the colours, in [0, 1], of the authors' training images."""
Activation = Literal["quick_gelu", "gelu"]
"""The authors' x sigmoid(1.702 x), or the exact one that some later weights have."""


def quick_gelu(x: Array) -> Array:
    """The sigmoid's approximation of the GELU."""
    return x * nn.sigmoid(1.702 * x)


class Block(nn.Module):
    """Tokens [B, L, C] -> tokens: attention, of tokens to none after them where it is causal, and an MLP of 4 C."""

    heads: int
    causal: bool = False
    activation: Activation = "quick_gelu"
    epsilon: float = 1e-5
    """Added to the variance that tokens are normalised by."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, length, width = x.shape
        mask = jnp.tril(jnp.ones((1, 1, length, length), bool)) if self.causal else None
        qkv = nn.Dense(3 * width, name="attn_in")(nn.LayerNorm(self.epsilon, name="ln_1")(x))
        q, k, v = (part.reshape(batch, length, self.heads, -1) for part in jnp.split(qkv, 3, -1))
        mixed = nn.dot_product_attention(q, k, v, mask=mask).reshape(x.shape)
        x = x + nn.Dense(width, name="attn_out")(mixed)
        hidden = nn.Dense(4 * width, name="c_fc")(nn.LayerNorm(self.epsilon, name="ln_2")(x))
        hidden = quick_gelu(hidden) if self.activation == "quick_gelu" else nn.gelu(hidden, approximate=False)
        return x + nn.Dense(width, name="c_proj")(hidden)


class VisionTransformer(nn.Module):
    """Images [B, side, side, 3], normalised -> embeddings [B, features], of the class token."""

    features: int
    side: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    activation: Activation = "quick_gelu"

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if x.shape[1:3] != (self.side, self.side):
            raise UserError(f"images of {x.shape[1]}x{x.shape[2]}: this CLIP takes {self.side}x{self.side}")
        x = Conv(self.width, (self.patch, self.patch), self.patch, padding="VALID", use_bias=False, name="conv1")(x)
        x = x.reshape(len(x), -1, self.width)
        init = nn.initializers.normal(self.width**-0.5)
        token = self.param("class_embedding", init, (self.width,))
        x = jnp.concatenate([jnp.broadcast_to(token, (len(x), 1, self.width)), x], 1)
        x = x + self.param("positional_embedding", init, x.shape[1:])[None]
        x = nn.LayerNorm(1e-5, name="ln_pre")(x)
        for i in range(self.layers):
            x = Block(self.heads, activation=self.activation, name=f"resblocks_{i}")(x)
        return nn.LayerNorm(1e-5, name="ln_post")(x[:, 0]) @ self.param("proj", init, (self.width, self.features))


class TextTransformer(nn.Module):
    """Tokens int32 [B, L], zeros behind the last, which has the highest number -> embeddings [B, features], of the last."""

    features: int
    context: int = 77
    vocabulary: int = 49408
    width: int = 512
    layers: int = 12
    heads: int = 8
    activation: Activation = "quick_gelu"

    @nn.compact
    def __call__(self, tokens: Array) -> Array:
        if tokens.shape[1] > self.context:
            raise UserError(f"text of {tokens.shape[1]} tokens: this CLIP reads {self.context}")
        x = nn.Embed(self.vocabulary, self.width, name="token_embedding")(tokens)
        places = self.param("positional_embedding", nn.initializers.normal(0.01), (self.context, self.width))
        x = x + places[None, : tokens.shape[1]]
        for i in range(self.layers):
            x = Block(self.heads, True, self.activation, name=f"resblocks_{i}")(x)
        last = jnp.take_along_axis(nn.LayerNorm(1e-5, name="ln_final")(x), jnp.argmax(tokens, 1)[:, None, None], 1)[:, 0]
        init = nn.initializers.normal(self.width**-0.5)
        return last @ self.param("text_projection", init, (self.width, self.features))


class CLIP(nn.Module):
    """Images [B, side, side, 3], normalised, and tokens int32 [N, L] -> embeddings of both, and the scale of similarities.

    `image` and `text` give one embedding alone; `prepared` makes its images of any others.
    """

    visual: VisionTransformer
    transformer: TextTransformer

    def setup(self) -> None:
        """The scale; the towers are given."""
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(np.log(1 / 0.07)), ())

    def __call__(self, images: Array, tokens: Array) -> tuple[Array, Array, Array]:
        return self.visual(images), self.transformer(tokens), jnp.exp(self.logit_scale)

    def image(self, images: Array) -> Array:
        """Embeddings of images."""
        return self.visual(images)

    def text(self, tokens: Array) -> Array:
        """Embeddings of texts."""
        return self.transformer(tokens)


def prepared(images: Array, side: int, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Array:
    """Images [B, H, W, 1 or 3] in [-1, 1] as CLIP takes them: squares of `side` by a cubic filter, colour, normalised.

    Gradients pass. TediGAN's code enlarges by nearest pixels and averages, without the normalisation.
    """
    colour = jnp.broadcast_to(images, (*images.shape[:3], 3))
    resized = jax.image.resize(colour, (len(images), side, side, 3), "cubic")
    rows = (jnp.asarray(v, images.dtype)[None, None, None] for v in (mean, std))
    centre, spread = rows
    return ((resized + 1) / 2 - centre) / spread
