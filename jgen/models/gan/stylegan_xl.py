"""StyleGAN-XL (Sauer et al. 2022, arXiv:2202.00273): StyleGAN3 with small latents, pretrained classes, and growth from a stem.

Synthesis is `stylegan3.Synthesis`, whose averages of magnitudes stay 1 in training. Classes go through a fixed table of
embeddings, class means of a pretrained network's features, to a part as wide as z. w_avg has a row for each class.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.models.gan import stylegan3
from jgen.models.gan.stylegan2 import truncate
from jgen.nn.equalized import NORMAL, Dense, normalize
from jgen.types import Array


class Mapping(nn.Module):
    """z [B, Z] (and classes int32 [B], or one-hot [B, classes]) -> w [B, w_dim]. The table is the buffer "embedding"."""

    classes: int = 0
    w_dim: int = 512
    num_layers: int = 2
    lr_mul: float = 0.01
    embedding: int = 320
    """Numbers of a class in the table."""

    @nn.compact
    def __call__(self, z: Array, c: Array | None = None) -> Array:
        if (c is None) == bool(self.classes):
            raise UserError(f"c: the network has classes={self.classes} but {'no labels' if c is None else 'labels'} came")
        x = normalize(z)
        if c is not None:
            shape = (self.classes, self.embedding)
            table = self.variable("buffers", "embedding", lambda: NORMAL(self.make_rng("params"), shape)).value
            embedded = Dense(z.shape[-1], "lrelu", name="embed_proj")(table[classes_of(c)])
            x = jnp.concatenate([x, normalize(embedded)], -1)
        for i in range(self.num_layers):
            x = Dense(self.w_dim, "lrelu", self.lr_mul, name=f"fc{i}")(x)
        return x


def classes_of(c: Array) -> Array:
    """Classes int32 [B] of themselves, or of one-hot labels [B, classes]."""
    return jnp.argmax(c, -1) if c.ndim == 2 else c


class Generator(stylegan3.Generator):
    """StyleGAN3's generator with another mapping; z_dim is 64 and c_dim the number of classes in the paper's networks."""

    embedding: int = 320

    def setup(self) -> None:
        self.mapping = Mapping(self.c_dim, self.w_dim, self.mapping_layers, self.mapping_lr_mul, self.embedding)
        self.synthesis = stylegan3.Synthesis(self.layers, self.output_scale, self.clamp, self.beta)


def track(w_avg: Array, w: Array, c: Array | None, beta: float = 0.998) -> Array:
    """w_avg [D], or with classes [classes, D], moved towards w [B, D]: each image moves its class's row, in their order."""
    if c is None:
        return stylegan3.track(w_avg, w, beta)

    def move(table: Array, one: tuple[Array, Array]) -> tuple[Array, None]:
        at, own = one
        return table.at[at].set(own + beta * (table[at] - own)), None

    return jax.lax.scan(move, w_avg, (classes_of(c), jax.lax.stop_gradient(w)))[0]


def pull(ws: Array, w_avg: Array, c: Array | None, psi: float | Array, cutoff: int | None = None) -> Array:
    """The first `cutoff` rows (all, if None) of ws [B, num_ws, D] moved towards w_avg [D], or each to its class's row."""
    if c is None:
        return truncate(ws, w_avg, psi, cutoff)
    return jax.vmap(lambda ws, centre: truncate(ws[None], centre, psi, cutoff)[0])(ws, w_avg[classes_of(c)])
