"""BigGAN (Brock et al. 2018, arXiv:1809.11096), and SAGAN (Zhang et al. 2018, arXiv:1805.08318), which it grew from.

Widths, order of layers and names are those of the author's PyTorch code (ajbrock/BigGAN-PyTorch), at 32 to 512 pixels; 8 and 16
go on as 32 does. Classes come as weights [B, classes]: one-hot, or anything between. IC-GAN (Casanova et al. 2021,
arXiv:2109.05070) is the same pair given the features of an instance, [B, D] of norm 1.

State that no gradient moves: "batch_stats" of G and "spectral" of both (`jgen.nn.spectral`), which move in training calls.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.conditional_norm import ConditionalBatchNorm
from jgen.nn.nonlocal_attention import NonLocal
from jgen.nn.norm import BatchNorm
from jgen.nn.resample import downsample, upsample
from jgen.nn.spectral import Conv, Dense, Embed, SpectralNorm
from jgen.types import Array, DiscriminatorOutput

WIDTHS = {
    8: (4, 4),
    16: (4, 4, 4),
    32: (4, 4, 4, 4),
    64: (16, 16, 8, 4, 2),
    128: (16, 16, 8, 4, 2, 1),
    256: (16, 16, 8, 8, 4, 2, 1),
    512: (16, 16, 8, 8, 4, 2, 1, 1),
}
"""{side: channels of G from 4x4 on, in multiples of its width}."""
INITIALIZERS = {
    "ortho": nn.initializers.orthogonal(),
    "N02": nn.initializers.normal(0.02),
    "xavier": nn.initializers.glorot_uniform(),
    "lecun": nn.initializers.lecun_normal(),
}
"""The author's choices, and Sonnet's (lecun), for kernels and embeddings alike."""
SN = SpectralNorm()


def rectifier(slope: float) -> Callable[[Array], Array]:
    """ReLU, or with a slope below 0 the leaky one, which LOGAN's players have (Wu et al. 2019, arXiv:1912.00953)."""
    return partial(nn.leaky_relu, negative_slope=slope) if slope else nn.relu


class Level(NamedTuple):
    """A block of a network."""

    inputs: int
    outputs: int
    resample: bool
    side: int
    """The side of its output as the author's tables have it; attention goes by it."""


def check_side(side: int) -> None:
    """Raises UserError for a side that the author's tables, or their continuation to smaller ones, don't have."""
    if side not in WIDTHS:
        raise UserError(f"resolution={side}: must be {', '.join(map(str, WIDTHS))} pixels")


def generator_levels(side: int, width: int) -> list[Level]:
    """The blocks from 4x4 to side."""
    check_side(side)
    chain = [width * n for n in WIDTHS[side]]
    return [Level(a, b, True, 8 << i) for i, (a, b) in enumerate(pairwise(chain))]


def small_side(side: int) -> tuple[int, int]:
    """(how often D halves an image of at most 32 pixels, the side after the first, by which its table names every block)."""
    return min(2, (side // 4).bit_length() - 1), side // 2


def discriminator_levels(side: int, width: int, channels: int) -> list[Level]:
    """The blocks from an image of `channels` on; the last one keeps the size."""
    check_side(side)
    if side <= 32:
        halvings, named = small_side(side)
        inputs = [channels] + [4 * width] * (halvings + 1)
        return [Level(n, 4 * width, i < halvings, named) for i, n in enumerate(inputs)]
    chain = [channels, *(width * n for n in WIDTHS[side][:0:-1]), 16 * width]
    last = len(chain) - 2
    return [Level(a, b, i < last, max(side >> (i + 1), 4)) for i, (a, b) in enumerate(pairwise(chain))]


class GeneratorBlock(nn.Module):
    """Norm, relu, twice the size, convolution; norm, relu, convolution; with a 1x1 shortcut."""

    features: int
    bn: Callable[..., ConditionalBatchNorm]
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer
    slope: float = 0.0

    @nn.compact
    def __call__(self, x: Array, y: Array, train: bool) -> Array:
        rectify = rectifier(self.slope)

        def conv(name: str, size: int = 3, up: bool = False) -> Conv:
            return Conv(self.features, size, self.norm, kernel_init=self.kernel_init, up=up, name=name)

        h = conv("conv1", up=True)(rectify(self.bn(name="bn1")(x, y, train)))
        h = conv("conv2")(rectify(self.bn(name="bn2")(h, y, train)))
        # A 1x1 convolution and the repetition of pixels commute, and the small image is cheaper.
        return h + upsample(conv("conv_sc", 1)(x))


class DiscriminatorBlock(nn.Module):
    """Two convolutions, then half the size; with a 1x1 shortcut where the size or the channels change."""

    features: int
    down: bool
    first: bool
    """Takes the image, which no relu comes before."""
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer
    wide: bool = True
    """Hidden channels as the output's; else as the input's."""
    slope: float = 0.0

    @nn.compact
    def __call__(self, x: Array) -> Array:
        rectify = rectifier(self.slope)

        def conv(name: str, features: int, size: int = 3) -> Conv:
            return Conv(features, size, self.norm, kernel_init=self.kernel_init, name=name)

        hidden = self.features if self.wide else x.shape[-1]
        h = conv("conv1", hidden)(x if self.first else rectify(x))
        h = conv("conv2", self.features)(rectify(h))
        smaller = downsample if self.down else lambda x: x
        changes = self.down or x.shape[-1] != self.features
        return smaller(h) + (conv("conv_sc", self.features, 1)(smaller(x)) if changes else x)


class Generator(nn.Module):
    """z [B, Z] with classes [B, classes], features [B, D] or both -> images [B, side, side, channels] in (-1, 1).

    Raises UserError where z is hierarchical and its chunks, one for the first layer and one a block, don't divide it, or
    without a shared embedding.
    """

    side: int
    channels: int = 3
    width: int = 64
    """The author's "ch"."""
    z_dim: int = 128
    classes: int = 0
    """0 for a network without classes."""
    attention: tuple[int, ...] = ()
    """Sides of the features that a non-local block follows."""
    hierarchical: bool = True
    """Gives every block a chunk of z of its own."""
    shared: bool = True
    """One embedding of the classes for all norms, which are linear in it; else every norm has embeddings of its own."""
    shared_dim: int = 128
    shared_features: int = 0
    """Size of the embedding of instance features; 0 for a network without them."""
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"
    bottom: int = 4
    """Side of the first features; the author's sides go by 4."""
    bn_epsilon: float = 1e-5
    last_bn_epsilon: float = 1e-5
    unbiased: bool = True
    """The running variance is the unbiased one; False as the author's "mybn"."""
    slope: float = 0.0
    """Slope of the activations below 0; the author's are ReLU."""
    embed_features: bool = True
    """Embed instance features; else they go to the norms as they are."""

    @property
    def chunk(self) -> int:
        """Size of a block's own latents; 0 for a z that goes to the first layer whole."""
        check_side(self.side)
        places = len(WIDTHS[self.side])
        if not self.hierarchical:
            return 0
        if self.z_dim % places or self.z_dim < places:
            raise UserError(f"z_dim={self.z_dim}: must be a multiple of {places}, the chunks at {self.side}x{self.side}")
        return self.z_dim // places

    def setup(self) -> None:
        levels, kernel_init = generator_levels(self.side, self.width), INITIALIZERS[self.initializer]
        if not self.hierarchical and not self.classes and not self.shared_features:
            raise UserError("classes=0: a network without a condition needs hierarchical latents")
        if not self.shared and (self.hierarchical or self.shared_features or not self.classes):
            raise UserError("shared=False: every norm embeds the class alone, without chunks of z or instance features")
        if self.shared and self.classes:
            self.embedding = Embed(self.shared_dim, embedding_init=kernel_init)
        if self.shared_features and self.embed_features:
            self.feature_embedding = Dense(self.shared_features, self.norm, kernel_init=kernel_init)
        self.linear = Dense(levels[0].inputs * self.bottom**2, self.norm, kernel_init=kernel_init)
        bn = partial(
            ConditionalBatchNorm, self.norm, self.shared, self.bn_epsilon, unbiased=self.unbiased, kernel_init=kernel_init
        )
        self.blocks: list[list[Any]] = [
            [GeneratorBlock(level.outputs, bn, self.norm, kernel_init, self.slope)]
            + [NonLocal(self.norm, kernel_init)] * (level.side in self.attention)
            for level in levels
        ]
        self.bn = BatchNorm(epsilon=self.last_bn_epsilon, unbiased=self.unbiased)
        self.rgb = Conv(self.channels, norm=self.norm, kernel_init=kernel_init)

    def embed(self, label: Array | None, features: Array | None = None) -> Array | None:
        """The embeddings of class and instance side by side [B, E], which the norms take besides z; None without both."""
        parts = []
        if label is not None:
            parts.append(self.embedding(label) if self.shared else label)
        if features is not None:
            parts.append(self.feature_embedding(features) if self.embed_features else features)
        return jnp.concatenate(parts, -1) if parts else None

    def synthesize(self, z: Array, embedding: Array | None, *, train: bool = False) -> Array:
        """Images of latents and of what `embed` gave, or anything between two such."""
        inputs = [embedding] * len(self.blocks)
        if self.chunk:
            z, *chunks = jnp.split(z, len(self.blocks) + 1, -1)
            inputs = [chunk if embedding is None else jnp.concatenate([embedding, chunk], -1) for chunk in chunks]
        h = self.linear(z).reshape(len(z), -1, self.bottom, self.bottom)  # the author's order of units
        h = jnp.moveaxis(h, 1, -1)
        for (block, *attention), y in zip(self.blocks, inputs):
            h = block(h, y, train)
            for layer in attention:
                h = layer(h)
        return jnp.tanh(self.rgb(rectifier(self.slope)(self.bn(h, train))))

    def __call__(self, z: Array, label: Array | None = None, features: Array | None = None, *, train: bool = False) -> Array:
        return self.synthesize(z, self.embed(label, features), train=train)


Head = Literal["projection", "auxiliary", "discriminative", "twin", "multi_hinge", "contrastive", "data_to_data"]
"""How D judges classes; but for the first, by what `jgen.objectives.class_heads` makes of further outputs."""


class ClassHead(nn.Module):
    """Features h [B, C] -> DiscriminatorOutput: a linear logit, and what D makes of the conditions.

    "projection" adds the product of the features and the conditions' embedding to the logit (Miyato & Koyama 2018).
    """

    classes: int
    instance: bool
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer
    kind: Head = "projection"

    @nn.compact
    def __call__(self, h: Array, label: Array | None = None, features: Array | None = None) -> DiscriminatorOutput:
        logits = self._dense(1, "linear")(h)[:, 0]
        if self.kind != "projection" and label is not None:
            return self._classified(h, logits, label)
        size, parts = h.shape[-1] // (2 if self.classes and self.instance else 1), []
        if self.classes and label is not None:
            parts.append(Embed(size, self.norm, self.kernel_init, name="embed")(label))
        if self.instance and features is not None:
            parts.append(self._dense(size, "linear_feat")(features))
        if parts:
            logits = logits + jnp.sum(jnp.concatenate(parts, -1) * h, -1)
        return DiscriminatorOutput(logits)

    def _dense(self, features: int, name: str) -> Dense:
        return Dense(features, self.norm, kernel_init=self.kernel_init, name=name)

    def _classified(self, h: Array, logits: Array, label: Array) -> DiscriminatorOutput:
        if self.kind in ("contrastive", "data_to_data"):
            proxy = Embed(h.shape[-1], self.norm, self.kernel_init, name="proxy")(label)
            return DiscriminatorOutput(logits, embedding=self._dense(h.shape[-1], "embedding")(h), proxy=proxy)
        columns = {"discriminative": 2 * self.classes, "multi_hinge": self.classes + 1}.get(self.kind, self.classes)
        classes = self._dense(columns, "class_logits")(h)
        twin = self._dense(columns, "twin_logits")(h) if self.kind == "twin" else None
        return DiscriminatorOutput(logits, classes, twin)


class Discriminator(nn.Module):
    """Images [B, side, side, C], with classes [B, classes], instance features [B, D] or both -> DiscriminatorOutput."""

    side: int
    width: int = 64
    classes: int = 0
    """0 for a network without classes."""
    attention: tuple[int, ...] = ()
    """Sides of the features that a non-local block follows."""
    instance: bool = False
    """Takes instance features."""
    wide: bool = True
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"
    head: Head = "projection"
    slope: float = 0.0
    """Slope of the activations below 0; the author's are ReLU."""

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None, features: Array | None = None) -> DiscriminatorOutput:
        kernel_init = INITIALIZERS[self.initializer]
        for i, level in enumerate(discriminator_levels(self.side, self.width, x.shape[-1])):
            block = DiscriminatorBlock(
                level.outputs, level.resample, i == 0, self.norm, kernel_init, self.wide, self.slope, name=f"blocks_{i}_0"
            )
            x = block(x)
            if level.side in self.attention:
                x = NonLocal(self.norm, kernel_init, name=f"blocks_{i}_1")(x)
        h = jnp.sum(rectifier(self.slope)(x), (1, 2))
        head = ClassHead(self.classes, self.instance, self.norm, kernel_init, self.head, name="head")
        return head(h, label, features)


def chunked(z_dim: int, side: int) -> int:
    """The largest size of z up to z_dim that its chunks at a side divide, as the author's constructor rounds it.

    >>> chunked(128, 64)
    125
    """
    check_side(side)
    return z_dim // len(WIDTHS[side]) * len(WIDTHS[side])
