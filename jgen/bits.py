"""Likelihoods in bits per dimension, comparable between families because the kind of likelihood is always named."""

import math
from collections.abc import Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from jgen.errors import UserError
from jgen.types import Array

Number = TypeVar("Number", float, Array)
Dequantization = Literal["discrete", "uniform", "variational", "none"]
"""discrete: a probability of the 8-bit values themselves. uniform, variational: a density of them with such noise
added, which bounds it. none: a density of the values as they are, comparable with nothing else."""


class BitsPerDim(NamedTuple, Generic[Number]):
    bits: Number
    dequantization: Dequantization
    bound: bool
    """Whether it is a bound (of a VAE or a diffusion model) rather than exact."""

    @property
    def name(self) -> str:
        """The measure's name, such as bits_per_dim_discrete_bound."""
        return f"bits_per_dim_{self.dequantization}{'_bound' if self.bound else ''}"


def bits_per_dim(
    nats: Number,
    shape: Sequence[int],
    dequantization: Dequantization,
    *,
    bound: bool = False,
    scale: float = 1.0,
    levels: int = 256,
) -> BitsPerDim[Number]:
    """-log likelihood of an image in nats -> bits for each of its numbers; `shape` is the image's, without padding.

    scale: the width of the whole range of values in which a density was taken (2 for images in [-1, 1), 256 for
    levels); not used for "discrete". A density p of values with bins of scale / levels gives a probability of
    p * scale / levels a bin. Raises UserError for a shape without numbers.
    """
    count = math.prod(shape)
    if count < 1 or levels < 2 or scale <= 0:
        raise UserError(f"shape={tuple(shape)}, levels={levels}, scale={scale}: must hold at least 1, 2 and more than 0")
    bits = nats / (count * math.log(2)) + (0 if dequantization == "discrete" else math.log2(levels / scale))
    return BitsPerDim(bits, dequantization, bound)
