"""Small convolutional GANs: DCGAN's shape (Radford et al. 2015, arXiv:1511.06434) and the ResNets of WGAN-GP.

Gulrajani et al. 2017 (arXiv:1704.00028) for the latter. Generators end in tanh and have batch normalisation; discriminators
have none, so that gradient penalties stay per image. Both go by factors of 2 from 4, or the odd number that halving ends
at: 8 from 4, 28 from 7, 32 from 4. Labels come as weights [B, classes]: one-hot, or anything between.
"""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.conv import Conv3x3
from jgen.nn.norm import BatchNorm
from jgen.nn.resample import downsample, upsample
from jgen.types import Array, DiscriminatorOutput

Kind = Literal["dcgan", "resnet"]
Conditioning = Literal["none", "concat", "projection", "auxiliary"]
INIT = nn.initializers.he_normal()


def doublings(size: int) -> int:
    """How often 4, or an odd number, is doubled to give `size`. Raises UserError for sizes below 8 or odd ones."""
    if size < 8 or size % 2:
        raise UserError(f"size={size}: must be even, and at least 8 pixels")
    count = 0
    while size % 2 == 0 and size > 4:
        size, count = size // 2, count + 1
    return count


class Generator(nn.Module):
    """z [B, Z] (and labels [B, classes]) -> images [B, size, size, channels] in (-1, 1). Statistics are in "batch_stats"."""

    size: int
    channels: int
    width: int = 64
    """Channels of the last features; each level before has twice as many."""
    kind: Kind = "dcgan"

    @nn.compact
    def __call__(self, z: Array, label: Array | None = None, *, train: bool = False) -> Array:
        levels = doublings(self.size)
        start, width = self.size >> levels, self.width << levels
        z = z if label is None else jnp.concatenate([z, label], -1)

        def norm(x: Array) -> Array:
            return nn.relu(BatchNorm()(x, train))

        x = nn.Dense(start * start * width, kernel_init=INIT)(z).reshape(-1, start, start, width)
        for _ in range(levels):
            width //= 2
            if self.kind == "dcgan":
                x = Conv3x3(width, kernel_init=INIT, up=True)(norm(x))
            else:
                y = Conv3x3(width, kernel_init=INIT, up=True)(norm(x))
                y = Conv3x3(width, kernel_init=INIT)(norm(y))
                x = upsample(nn.Dense(width, kernel_init=INIT)(x)) + y
        return jnp.tanh(Conv3x3(self.channels)(norm(x)))


class Discriminator(nn.Module):
    """Images [B, size, size, C] (and labels [B, classes]) -> DiscriminatorOutput.

    conditioning: "concat" adds the label as planes to the image (Mirza & Osindero 2014), "projection" its inner product with
    the features to the logit (Miyato & Koyama 2018), "auxiliary" names the class too (Odena et al. 2017).
    """

    width: int = 64
    """Channels of the first level; each further one has twice as many."""
    kind: Kind = "dcgan"
    conditioning: Conditioning = "none"

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        if (label is None) != (self.conditioning == "none"):
            given = "no label" if label is None else "a label"
            raise UserError(f"label: the network has conditioning={self.conditioning} but {given} came")
        levels = doublings(x.shape[1])
        if self.conditioning == "concat":
            assert label is not None
            planes = jnp.broadcast_to(label[:, None, None], (*x.shape[:3], label.shape[-1]))
            x = jnp.concatenate([x, planes], -1)
        x = Conv3x3(self.width, kernel_init=INIT)(x)
        for i in range(levels):
            width = self.width << (i + 1)
            y = Conv3x3(width, kernel_init=INIT)(nn.leaky_relu(x, 0.2))
            if self.kind == "resnet":
                y = Conv3x3(width, kernel_init=INIT)(nn.leaky_relu(y, 0.2))
                y = y + nn.Dense(width, kernel_init=INIT)(x)
            x = downsample(y)
        features = nn.leaky_relu(x, 0.2).reshape(len(x), -1)
        logits = nn.Dense(1, name="logit")(features)[:, 0]
        if self.conditioning == "projection":
            assert label is not None
            logits = logits + jnp.sum(nn.Dense(features.shape[-1], use_bias=False, name="embed")(label) * features, -1)
        if self.conditioning != "auxiliary":
            return DiscriminatorOutput(logits)
        assert label is not None
        return DiscriminatorOutput(logits, nn.Dense(label.shape[-1], name="classes")(features))
