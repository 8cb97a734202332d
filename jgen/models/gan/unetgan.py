"""U-Net GAN's discriminator (Schönfeld et al. 2020, arXiv:2002.12655): BigGAN's, with a decoder that judges every pixel.

Widths, order of layers and names are those of the authors' code (boschresearch/unetgan) at 128 and 256 pixels, which smaller
sides continue. Its generator is BigGAN's. State and classes are as in `jgen.models.gan.biggan`.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.models.gan.biggan import INITIALIZERS, SN, DiscriminatorBlock
from jgen.nn.nonlocal_attention import NonLocal
from jgen.nn.resample import upsample
from jgen.nn.spectral import Conv, Dense, Embed, SpectralNorm
from jgen.types import Array, DiscriminatorOutput

ENCODER = {8: (4,), 16: (4, 4), 32: (4, 4, 4), 64: (2, 4, 8, 16), 128: (1, 2, 4, 8, 16), 256: (1, 2, 4, 8, 8, 16)}
"""{side: channels after each halving, in multiples of the width}."""
LAST_ATTENTION = 4
"""Attention follows none of the blocks from the sixth on, wherever its sides lie."""


class DecoderBlock(nn.Module):
    """Relu, twice the size, convolution, relu, convolution; with a 1x1 shortcut. There is no norm of features."""

    features: int
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def conv(name: str, size: int = 3, up: bool = False) -> Conv:
            return Conv(self.features, size, self.norm, kernel_init=self.kernel_init, up=up, name=name)

        h = conv("conv2")(nn.relu(conv("conv1", up=True)(nn.relu(x))))
        return h + upsample(conv("conv_sc", 1)(x))


class Discriminator(nn.Module):
    """Images [B, side, side, C], with classes [B, classes] -> DiscriminatorOutput of two heads: ([B, side, side], [B]).

    The first judges pixels, the second, at the end of the encoder, the image. Raises UserError for a side it is not known at.
    """

    side: int
    width: int = 64
    classes: int = 0
    """0 for a network without classes."""
    attention: tuple[int, ...] = ()
    """Sides of the features that a non-local block follows."""
    wide: bool = True
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"

    @nn.compact
    def __call__(self, x: Array, label: Array | None = None) -> DiscriminatorOutput:
        if self.side not in ENCODER:
            raise UserError(f"resolution={self.side}: must be {', '.join(map(str, ENCODER))} pixels")
        kernel_init, outputs = INITIALIZERS[self.initializer], [n * self.width for n in ENCODER[self.side]]
        kept = []
        for i, features in enumerate(outputs):
            block = DiscriminatorBlock(features, True, i == 0, self.norm, kernel_init, self.wide, name=f"blocks_{i}_0")
            x = self._attended(block(x), i, kernel_init)
            kept.append(x)
        h = jnp.sum(nn.relu(kept.pop()), (1, 2))
        image = Dense(1, self.norm, kernel_init=kernel_init, name="linear_middle")(h)[:, 0]
        for i, features in enumerate([*outputs[-2::-1], outputs[0]], len(outputs)):
            x = DecoderBlock(features, self.norm, kernel_init, name=f"blocks_{i}_0")(x)
            x = self._attended(x, i, kernel_init)
            x = jnp.concatenate([x, kept.pop()], -1) if kept else x
        pixels = Conv(1, 1, kernel_init=kernel_init, name="pixels")(x)[..., 0]
        if label is not None:
            image += jnp.sum(Embed(h.shape[-1], self.norm, kernel_init, name="embed_middle")(label) * h, -1)
            embedding = Embed(x.shape[-1], self.norm, kernel_init, name="embed")(label)
            pixels += jnp.sum(embedding[:, None, None] * x, -1)
        return DiscriminatorOutput((pixels, image))

    def _attended(self, x: Array, index: int, kernel_init: nn.initializers.Initializer) -> Array:
        if index > LAST_ATTENTION or x.shape[1] not in self.attention:
            return x
        return NonLocal(self.norm, kernel_init, name=f"blocks_{index}_1")(x)
