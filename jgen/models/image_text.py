"""Images and captions in one space: CLIP's idea (Radford et al. 2021, arXiv:2103.00020) with small encoders.

The image encoder is the residual network of jgen's classifiers, the text encoder that of its models of captions, of bytes or of
MiniLM's features. `jgen.models.clip` is the paper's own network.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.models.cnn import CNN
from jgen.models.text import FeatureEncoder, WordEncoder
from jgen.types import Array


class TextEncoder(nn.Module):
    """Captions uint8 [B, L], or features [B, L, D] of a language model -> [B, features]; an empty caption's are the bias alone.

    Tokens are read by a query for each of `heads` (attention pooling), since a mean would not keep which colour came first.
    """

    features: int
    width: int = 64
    heads: int = 4

    @nn.compact
    def __call__(self, caption: Array) -> Array:
        encoder = WordEncoder if caption.ndim == 2 else FeatureEncoder
        tokens = encoder(self.width, name="tokens")(caption)
        there = jnp.any(tokens != 0, -1, keepdims=True)
        scores = nn.Dense(self.heads, name="query")(tokens)
        weights = nn.softmax(jnp.where(there, scores, -1e9), 1) * there
        pooled = jnp.einsum("blh,blc->bhc", weights, tokens).reshape(len(tokens), -1)
        hidden = nn.gelu(nn.Dense(2 * self.width, name="hidden")(pooled))
        return nn.Dense(self.features, name="out")(hidden)


class ImageText(nn.Module):
    """Images [B, H, W, C] in [-1, 1] and captions -> embeddings of both [B, features], and the scale of their similarity.

    The scale is learnt as its logarithm, from 1 / 0.07 on, as the authors have it. `image` and `text` give one embedding alone.
    """

    features: int = 64
    channels: Sequence[int] = (32, 64)
    stride: int = 2
    text_width: int = 64
    dropout: float = 0.0

    def setup(self) -> None:
        """The three parts."""
        self.images = CNN(self.features, self.channels, self.stride, dropout=self.dropout)
        self.texts = TextEncoder(self.features, self.text_width)
        self.log_scale = self.param("log_scale", nn.initializers.constant(np.log(1 / 0.07)), ())

    def __call__(self, images: Array, captions: Array, train: bool = False) -> tuple[Array, Array, Array]:
        return self.image(images, train), self.text(captions), jnp.exp(self.log_scale)

    def image(self, images: Array, train: bool = False) -> Array:
        """Embeddings [B, features] of images."""
        return self.images(images, train=train)[1]

    def text(self, captions: Array) -> Array:
        """Embeddings [B, features] of captions."""
        return self.texts(captions)
