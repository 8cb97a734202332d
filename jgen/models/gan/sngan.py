"""SN-GAN's standard CNN (Miyato et al. 2018, arXiv:1802.05957, table 3), the players that CS-GAN's authors train.

Both go over three halvings of the side: 4 to 32 pixels, 8 to 64. As in deepmind-research/cs_gan, the generator's first layer is
linear, and batch normalisation, of epsilon 1e-3, and ReLU follow each transposed convolution.
"""

import flax.linen as nn
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.models.gan.biggan import INITIALIZERS, SN
from jgen.nn.norm import BatchNorm
from jgen.nn.plain import Conv, convolve
from jgen.nn.precision import at_least_float32
from jgen.nn.spectral import Dense, SpectralNorm, normalized
from jgen.types import Array, DiscriminatorOutput

HALVINGS = 3


def check_side(side: int) -> None:
    """Raises UserError for a side that can't be halved three times."""
    if side % 2**HALVINGS:
        raise UserError(f"resolution={side}: network=sn_dcgan needs a multiple of {2**HALVINGS}")


class Generator(nn.Module):
    """z [B, Z] -> images [B, side, side, channels] in (-1, 1). Statistics are in "batch_stats"."""

    side: int
    channels: int
    width: int = 64
    """Channels at the images' side; eight times as many at an eighth of it."""
    initializer: str = "ortho"

    @nn.compact
    def __call__(self, z: Array, *, train: bool = False) -> Array:
        check_side(self.side)
        init, start = INITIALIZERS[self.initializer], self.side >> HALVINGS
        x = Dense(start * start * 8 * self.width, kernel_init=init, name="linear")(z).reshape(-1, start, start, 8 * self.width)
        for i, times in enumerate((4, 2, 1)):
            x = nn.ConvTranspose(times * self.width, (4, 4), (2, 2), use_bias=False, kernel_init=init, name=f"up_{i}")(x)
            x = nn.relu(BatchNorm(epsilon=1e-3, name=f"norm_{i}")(x, train))
        x = Conv(self.channels, (3, 3), kernel_init=init, name="rgb")(x)
        return jnp.tanh(at_least_float32(x))


class StridedConv(nn.Module):
    """A convolution, spectrally normalised, with a bias; zeros around as TensorFlow's SAME has them."""

    features: int
    size: int
    stride: int
    norm: SpectralNorm | None
    kernel_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features))
        x = convolve(x, normalized(self, kernel, self.norm), self.stride, "SAME")
        return x + self.param("bias", nn.initializers.zeros, (self.features,))[None, None, None]


class Discriminator(nn.Module):
    """Images [B, side, side, C] -> DiscriminatorOutput: pairs of convolutions, the second of stride 2, and one more."""

    side: int
    width: int = 64
    norm: SpectralNorm | None = SN
    initializer: str = "ortho"

    @nn.compact
    def __call__(self, x: Array) -> DiscriminatorOutput:
        check_side(self.side)
        init = INITIALIZERS[self.initializer]
        for i, (times, size) in enumerate(((1, 3), (1, 4), (2, 3), (2, 4), (4, 3), (4, 4), (8, 3))):
            conv = StridedConv(times * self.width, size, 1 + i % 2, self.norm, init, name=f"conv_{i}")
            x = nn.leaky_relu(conv(x), 0.1)
        logits = Dense(1, self.norm, kernel_init=init, name="linear")(x.reshape(len(x), -1))
        return DiscriminatorOutput(at_least_float32(logits)[:, 0])
