"""Encoders and decoders of autoencoders: multi-layer perceptrons and convolutions (Kingma & Welling 2013, arXiv:1312.6114)."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.nn.conv import Conv3x3
from jgen.types import Array


class MLP(nn.Module):
    """Dense layers with an activation after each but the last.

    gated: twice as many units a layer, one half the sigmoid gates of the other, in place of the activation (Tomczak & Welling
    2018, arXiv:1705.07120).
    """

    widths: Sequence[int]
    activation: Callable[[Array], Array] = nn.relu
    gated: bool = False

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.widths):
            if self.gated and i < len(self.widths) - 1:
                x = nn.glu(nn.Dense(2 * width, name=f"dense_{i}")(x))
            else:
                x = nn.Dense(width, name=f"dense_{i}")(x if i == 0 or self.gated else self.activation(x))
        return x


class ConvEncoder(nn.Module):
    """Two 3x3 convolutions a level, each level half the size of the one before; then one dense layer."""

    outputs: int
    channels: Sequence[int]

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for i, width in enumerate(self.channels):
            x = nn.relu(Conv3x3(width, 2, name=f"down_{i}")(x))
            x = nn.relu(Conv3x3(width, name=f"conv_{i}")(x))
        return nn.Dense(self.outputs, name="out")(x.reshape(len(x), -1))


class ConvDecoder(nn.Module):
    """One dense layer, then the encoder's levels backwards."""

    shape: Sequence[int]
    """[H, W, outputs a pixel]."""
    channels: Sequence[int]

    @nn.compact
    def __call__(self, z: Array) -> Array:
        height, width = (side // 2 ** len(self.channels) for side in self.shape[:2])
        x = nn.relu(nn.Dense(height * width * self.channels[-1], name="in")(z))
        x = x.reshape(len(z), height, width, self.channels[-1])
        for i, channels in reversed(list(enumerate(self.channels))):
            x = nn.relu(Conv3x3(channels, name=f"up_{i}", up=True)(x))
        return Conv3x3(self.shape[2], name="out")(x)


class VAE(nn.Module):
    """Images [B, H, W, C] -> mean and log variance of q(z | x) [B, latents]; z -> outputs of a likelihood [B, H, W, K].

    A plain autoencoder is the mean alone. With `channels` both halves are convolutional, else MLPs of `widths`.
    """

    shape: tuple[int, int, int]
    outputs: int
    """Outputs of the likelihood for a pixel, K."""
    latents: int = 16
    widths: Sequence[int] = (256, 256)
    channels: Sequence[int] = ()
    activation: Callable[[Array], Array] = nn.relu
    gated: bool = False
    """Gates in place of activations in the MLPs."""

    def setup(self) -> None:
        if self.channels:
            if any(side % 2 ** len(self.channels) for side in self.shape[:2]):
                raise UserError(f"channels={tuple(self.channels)}: sides of {self.shape} must divide by 2 to their number")
            self.encoder = ConvEncoder(2 * self.latents, self.channels)
            self.decoder = ConvDecoder((*self.shape[:2], self.outputs), self.channels)
        else:
            pixels = int(np.prod(self.shape[:2]))
            self.encoder = MLP((*self.widths, 2 * self.latents), self.activation, self.gated)
            self.decoder = MLP((*reversed(self.widths), pixels * self.outputs), self.activation, self.gated)

    def __call__(self, x: Array) -> Array:
        return self.decode(self.encode(x)[0])

    def encode(self, x: Array) -> tuple[Array, Array]:
        """(mean, log variance)."""
        mean, log_variance = jnp.split(self.encoder(x if self.channels else x.reshape(len(x), -1)), 2, -1)
        return mean, log_variance

    def decode(self, z: Array) -> Array:
        return self.decoder(z).reshape(len(z), *self.shape[:2], self.outputs)
