"""PatchGAN discriminator (Isola et al. 2017, arXiv:1611.07004): real or not, patch by patch."""

import flax.linen as nn

from jgen.errors import UserError
from jgen.nn.norm import BatchNorm
from jgen.nn.plain import Conv
from jgen.nn.precision import at_least_float32
from jgen.types import Array


class PatchGAN(nn.Module):
    """Images [B, H, W, C] -> logits [B, h, w, 1]; `layers` strided convolutions. Running statistics: "batch_stats"."""

    channels: int = 64
    layers: int = 3

    @nn.compact
    def __call__(self, x: Array, *, train: bool) -> Array:
        if min(x.shape[1:3]) // 2**self.layers < 3:
            raise UserError(f"image of {x.shape[1]}x{x.shape[2]}: is too small for layers={self.layers}")
        init, index = nn.initializers.normal(0.02), 2
        h = Conv(self.channels, (4, 4), 2, padding=1, kernel_init=init, name="main_0")(x)
        for n in range(1, self.layers + 1):
            h = nn.leaky_relu(h, 0.2)
            width, stride = self.channels * min(2**n, 8), 2 if n < self.layers else 1
            h = Conv(width, (4, 4), stride, padding=1, use_bias=False, kernel_init=init, name=f"main_{index}")(h)
            h = BatchNorm(name=f"main_{index + 1}")(h, train)
            index += 3
        h = nn.leaky_relu(h, 0.2)
        return at_least_float32(Conv(1, (4, 4), padding=1, kernel_init=init, name=f"main_{index}")(h))
