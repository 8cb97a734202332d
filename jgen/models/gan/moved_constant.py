"""The learned constant of StyleGAN and StyleGAN2 as a signal that can be moved and turned, to measure their equivariance.

The StyleGAN3 paper (Karras et al. 2021, arXiv:2106.12423, table 1) gives no EQ-T of StyleGAN2, whose constant has no
transform: its row begins with Fourier features in the constant's place. Here the constant is one period of the band-limited
signal that its 4x4 samples determine, which a transform samples at other places: exact for any shift and turn, the constant
itself at the identity, and what Fourier features of those frequencies would give. It is a convention of jgen's.
"""

import jax
import jax.numpy as jnp

from jgen.types import Array, PyTree


def moved_constant(constant: Array, transform: Array) -> Array:
    """constant [n, n, C] sampled at moved places.

    transform [3, 3]: the inverse of what happens to the image, in widths, x first.
    """
    n = constant.shape[0]
    place = (jnp.arange(n) + 0.5) / n - 0.5
    across, down = jnp.meshgrid(place, place)
    x, y = (row[0] * across + row[1] * down + row[2] for row in transform[:2])
    return jnp.einsum("yxi,yxj,ijc->yxc", _weights(y, place), _weights(x, place), constant, precision="highest")


def _weights(at: Array, place: Array) -> Array:
    """[n, n, n]: the share of each of n samples of a period in the value at places [n, n]."""
    n, apart = len(place), at[..., None] - place[None, None]
    total = jnp.ones_like(apart)
    for k in range(1, n // 2 + 1):
        total = total + (1 if 2 * k == n else 2) * jnp.cos(2 * jnp.pi * k * apart)  # half of the highest wave of an even n
    return total / n


def with_moved_constant(params: PyTree, transform: Array) -> PyTree:
    """A generator's weights with its constant (a leaf named const) moved."""

    def move(path: tuple, leaf: Array) -> Array:
        return moved_constant(leaf, transform) if getattr(path[-1], "key", "") == "const" else leaf

    return jax.tree_util.tree_map_with_path(move, params)
