"""TarFlow (Zhai et al. 2024, arXiv:2412.06329): a flow of causal transformers over an image's patches.

Each block shifts and scales a token by what it says of the tokens before it, so that the way to the latents is one pass and the
way back is token by token. Blocks see the tokens in image order and reversed by turns. As in the authors' code, a label of
-1 (or none) stands for the mean of the classes' embeddings; theirs does so on the way to the latents only, and takes the last
class on the way back.
"""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.nn.decoder import DecoderLayer, KeysValues
from jgen.nn.dense import Dense
from jgen.nn.precision import at_least_float32
from jgen.types import Array

NORMAL = nn.initializers.normal(0.01)


class PatchGuidance(NamedTuple):
    """How the parameters of the way back are moved away from those without a class: a + scale (a - a_without)."""

    scale: float = 0.0
    what: Literal["a", "b", "ab"] = "ab"
    """The log scales, the shifts, or both."""
    temperature: float = 1.0
    """Divides the attention of the pass without a class."""
    annealed: bool = False
    """Let the scale grow from token to token, up to the last."""


UNGUIDED = PatchGuidance()


def patchify(x: Array, patch: int) -> Array:
    """[B, H, W, C] -> tokens [B, H W / p^2, C p p], row by row; inside a token the channel is slowest, then the row."""
    b, height, width, c = x.shape
    if height % patch or width % patch:
        raise UserError(f"patch={patch}: must divide the sides of images of {height}x{width}")
    x = x.reshape(b, height // patch, patch, width // patch, patch, c)
    return jnp.einsum("bhpwqc->bhwcpq", x).reshape(b, -1, c * patch * patch)


def unpatchify(tokens: Array, patch: int, height: int, width: int) -> Array:
    """The inverse of `patchify`."""
    b, rows, columns = len(tokens), height // patch, width // patch
    x = tokens.reshape(b, rows, columns, -1, patch, patch)
    return jnp.einsum("bhwcpq->bhpwqc", x).reshape(b, height, width, -1)


class MetaBlock(nn.Module):
    """One autoregressive flow over tokens [B, T, D].

    dtype is that of its transformer; tokens, shifts, scales and log-determinants are float32.
    """

    tokens: int
    size: int
    width: int
    layers: int
    heads: int
    reverse: bool
    volume_preserving: bool = False
    classes: int = 0
    dtype: jnp.dtype | None = None

    def setup(self) -> None:
        self.proj_in = Dense(self.width, dtype=self.dtype)
        self.pos_embed = self.param("pos_embed", NORMAL, (self.tokens, self.width))
        if self.classes:
            self.class_embed = self.param("class_embed", NORMAL, (self.classes, self.width))
        self.layer = [DecoderLayer(self.heads, self.width, dtype=self.dtype) for _ in range(self.layers)]
        outputs = self.size if self.volume_preserving else 2 * self.size
        self.proj_out = Dense(outputs, kernel_init=nn.initializers.zeros)

    def _ordered(self, x: Array, axis: int = 1) -> Array:
        return jnp.flip(x, axis) if self.reverse else x

    def _class(self, label: Array | None, batch: int) -> Array:
        """[B, 1, width]."""
        if not self.classes:
            return jnp.zeros((batch, 1, self.width))
        mean = jnp.mean(self.class_embed, 0)[None]
        if label is None:
            return jnp.broadcast_to(mean[:, None], (batch, 1, self.width))
        return jnp.where(label[:, None] < 0, mean, self.class_embed[label])[:, None]

    def _parameters(self, h: Array) -> tuple[Array, Array]:
        """(log scales a, shifts b)."""
        out = self.proj_out(at_least_float32(h))
        if self.volume_preserving:
            return jnp.zeros_like(out), out
        a, b = jnp.split(out, 2, -1)
        return a, b

    def __call__(self, x: Array, label: Array | None = None) -> tuple[Array, Array]:
        """(z, log-determinant divided by the number of dimensions [B])."""
        x = self._ordered(x)
        h = self.proj_in(x) + self._ordered(self.pos_embed, 0)[None] + self._class(label, len(x))
        h = h if self.dtype is None else h.astype(self.dtype)
        for layer in self.layer:
            h = layer(h)
        a, b = (jnp.pad(v[:, :-1], ((0, 0), (1, 0), (0, 0))) for v in self._parameters(h))
        return self._ordered((x - b) * jnp.exp(-a)), -jnp.mean(a, (1, 2))

    def inverse(self, z: Array, label: Array | None = None, guidance: PatchGuidance = UNGUIDED) -> Array:
        """Tokens of latents, one at a time, in one scan."""
        z, position = self._ordered(z), self._ordered(self.pos_embed, 0)
        batch, last = len(z), self.tokens - 1
        guided = guidance.scale > 0
        embed = [self._class(label, batch), *[self._class(None, batch)] * guided]
        kept = [[layer.empty(batch, self.tokens) for layer in self.layer] for _ in embed]

        def step(carry: tuple[list[list[KeysValues]], Array], now: tuple[Array, Array, Array]):
            (kept, x), (place, here, z) = carry, now
            found, new = [], []
            for k, (one, caches) in enumerate(zip(embed, kept)):
                h = self.proj_in(x) + here[None, None] + one
                stay = []
                for layer, cache in zip(self.layer, caches):
                    h, cache = layer.step(h, cache, place, temperature=guidance.temperature if k else 1.0)
                    stay.append(cache)
                found.append(self._parameters(h))
                new.append(stay)
            a, b = found[0]
            if guided:
                weight = guidance.scale * ((place + 1) / last if guidance.annealed else 1.0)
                a = a + weight * (a - found[1][0]) if "a" in guidance.what else a
                b = b + weight * (b - found[1][1]) if "b" in guidance.what else b
            x = z[:, None] * jnp.exp(a) + b
            return (new, x), x[:, 0]

        if last == 0:
            return self._ordered(z)
        places = jnp.arange(last), position[:-1], jnp.moveaxis(z[:, 1:], 1, 0)
        _, rest = lax.scan(step, (kept, z[:, :1]), places)
        return self._ordered(jnp.concatenate([z[:, :1], jnp.moveaxis(rest, 0, 1)], 1))


class TarFlow(nn.Module):
    """Images [B, S, S, C] -> (latents [B, T, D], log-determinant a dimension [B]), and back."""

    side: int
    channels: int = 3
    patch: int = 4
    width: int = 768
    blocks: int = 8
    layers: int = 8
    heads: int = 12
    volume_preserving: bool = False
    classes: int = 0
    dtype: jnp.dtype | None = None
    """The transformers'; on the way back from latents it must be None."""

    def setup(self) -> None:
        if self.side % self.patch or self.width % self.heads:
            raise UserError(
                f"patch={self.patch}, heads={self.heads}: must divide the side {self.side} and the width {self.width}"
            )
        self.block = [
            MetaBlock(
                *self.latent_shape, self.width, self.layers, self.heads, i % 2 == 1, self.volume_preserving, self.classes,
                self.dtype,
            )
            for i in range(self.blocks)
        ]  # fmt: skip

    @property
    def latent_shape(self) -> tuple[int, int]:
        """(tokens T, numbers of each D)."""
        return (self.side // self.patch) ** 2, self.channels * self.patch**2

    def __call__(self, x: Array, label: Array | None = None) -> tuple[Array, Array]:
        outputs, logdet = self.through(x, label)
        return outputs[-1], logdet

    def through(self, x: Array, label: Array | None = None) -> tuple[list[Array], Array]:
        """The tokens after each block, and the log-determinant a dimension [B]."""
        x, total, outputs = patchify(x, self.patch), jnp.zeros(x.shape[:1]), []
        for block in self.block:
            x, logdet = block(x, label)
            total = total + logdet
            outputs.append(x)
        return outputs, total

    def inverse(self, z: Array, label: Array | None = None, guidance: PatchGuidance = UNGUIDED) -> Array:
        """Images [B, S, S, C] of latents."""
        return self.back(z, label, guidance)[-1]

    def back(self, z: Array, label: Array | None = None, guidance: PatchGuidance = UNGUIDED) -> list[Array]:
        """The images after each block, the last one first, is undone; the first of all are the latents as they are."""
        images = [unpatchify(z, self.patch, self.side, self.side)]
        for block in reversed(self.block):
            z = block.inverse(z, label, guidance)
            images.append(unpatchify(z, self.patch, self.side, self.side))
        return images
