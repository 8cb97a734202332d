"""VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937) and VQ-VAE-2 (Razavi et al. 2019, arXiv:1906.00446).

Networks after rosinality's vq-vae-2-pytorch, whose names they take. Codebooks are arguments [codes, D]: they live in the
parameters where a gradient trains them, and in `extra` where a moving average does (`jgen.objectives.vqvae`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.nn.plain import Conv, convolve_transposed
from jgen.types import Array


class Quantized(NamedTuple):
    """A map of features and the codes that stand for it."""

    z: Array
    """[B, h, w, D]: what was quantised."""
    codes: Array
    """int32 [B, h, w]."""
    vectors: Array
    """[B, h, w, D]: the codes' vectors, without a gradient to z."""


def quantize(z: Array, codebook: Array) -> Quantized:
    """The nearest code [codes, D] of every vector of z [..., D], by Euclidean distance; ties go to the first."""
    dots = jnp.matmul(z, codebook.T, precision=lax.Precision.HIGHEST)
    distances = jnp.sum(jnp.square(codebook), 1).reshape(*[1] * (z.ndim - 1), -1) - 2 * dots
    codes = jnp.argmin(distances, -1).astype(jnp.int32)
    return Quantized(z, codes, codebook[codes])


def straight_through(q: Quantized) -> Array:
    """The codes' vectors, whose gradient goes to z unchanged."""
    return q.z + lax.stop_gradient(q.vectors - q.z)


class Transposed(nn.Module):
    """Transposed 4x4 convolution of stride 2: twice the size."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (4, 4, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve_transposed(x, kernel, ((2, 2), (2, 2))) + bias[None, None, None]


class ResBlock(nn.Module):
    """x + 1x1(ReLU(3x3(ReLU(x))))."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        h = Conv(self.features, (3, 3), padding=1, name="conv_1")(nn.relu(x))
        return x + Conv(x.shape[-1], (1, 1), name="conv_3")(nn.relu(h))


class Encoder(nn.Module):
    """4x4 convolutions of stride 2, a 3x3 one, residual blocks, ReLU."""

    features: int
    blocks: int
    block_features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        down = [self.features // 2, self.features] if self.stride == 4 else [self.features // 2]
        index = 0
        for width in down:
            x = nn.relu(Conv(width, (4, 4), 2, padding=1, name=f"blocks_{index}")(x))
            index += 2
        x = Conv(self.features, (3, 3), padding=1, name=f"blocks_{index}")(x)
        for i in range(self.blocks):
            x = ResBlock(self.block_features, name=f"blocks_{index + 1 + i}")(x)
        return nn.relu(x)


class Decoder(nn.Module):
    """A 3x3 convolution, residual blocks, ReLU, transposed convolutions."""

    outputs: int
    features: int
    blocks: int
    block_features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        x = Conv(self.features, (3, 3), padding=1, name="blocks_0")(x)
        for i in range(self.blocks):
            x = ResBlock(self.block_features, name=f"blocks_{1 + i}")(x)
        x, index = nn.relu(x), self.blocks + 2
        if self.stride == 4:
            x = nn.relu(Transposed(self.features // 2, name=f"blocks_{index}")(x))
            index += 2
        return Transposed(self.outputs, name=f"blocks_{index}")(x)


class VQVAE(nn.Module):
    """Images [B, H, W, C] -> reconstruction and, coarse to fine, what was quantised.

    One level: a grid `stride` times smaller than the image. Two: besides it a grid twice as coarse again, on which the
    fine one is conditioned.
    """

    channels: int
    """Channels of the images."""
    features: int = 128
    blocks: int = 2
    block_features: int = 32
    code_size: int = 64
    """D."""
    levels: int = 2
    stride: int = 4
    """Stride of the finest grid: 2 or 4."""

    def setup(self) -> None:
        if self.levels not in (1, 2) or self.stride not in (2, 4):
            raise UserError(f"levels={self.levels}, stride={self.stride}: must be 1 or 2, and 2 or 4")
        common = (self.features, self.blocks, self.block_features)
        self.enc_b = Encoder(*common, self.stride)
        self.quantize_conv_b = Conv(self.code_size, (1, 1))
        self.dec = Decoder(self.channels, *common, self.stride)
        if self.levels == 2:
            self.enc_t, self.quantize_conv_t = Encoder(*common, 2), Conv(self.code_size, (1, 1))
            self.dec_t, self.upsample_t = Decoder(self.code_size, *common, 2), Transposed(self.code_size)

    def __call__(self, x: Array, codebooks: Sequence[Array]) -> tuple[Array, list[Quantized]]:
        found = self.encode(x, codebooks)
        return self.decode([straight_through(q) for q in found]), found

    def encode(self, x: Array, codebooks: Sequence[Array]) -> list[Quantized]:
        """Every level's codes, coarse to fine."""
        fine = self.enc_b(x)
        if self.levels == 1:
            return [quantize(self.quantize_conv_b(fine), codebooks[0])]
        top = quantize(self.quantize_conv_t(self.enc_t(fine)), codebooks[0])
        both = jnp.concatenate([self.dec_t(straight_through(top)), fine], -1)
        return [top, quantize(self.quantize_conv_b(both), codebooks[1])]

    def decode(self, vectors: Sequence[Array]) -> Array:
        """The image of every level's vectors [B, h, w, D], coarse to fine."""
        if self.levels == 1:
            return self.dec(vectors[0])
        return self.dec(jnp.concatenate([self.upsample_t(vectors[0]), vectors[1]], -1))

    def grids(self, height: int, width: int) -> list[tuple[int, int]]:
        """Rows and columns of every level's codes, coarse to fine. Raises UserError for sides that do not divide."""
        total = self.stride * (2 if self.levels == 2 else 1)
        if height % total or width % total:
            raise UserError(f"stride={self.stride}, levels={self.levels}: images {height}x{width} must divide by {total}")
        fine = (height // self.stride, width // self.stride)
        return [fine] if self.levels == 1 else [(fine[0] // 2, fine[1] // 2), fine]
