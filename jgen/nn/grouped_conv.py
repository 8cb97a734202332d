"""Grouped convolutions of stride 1 that keep the size.

XLA's CPU backend runs a grouped convolution, and above all its gradients, one output at a time. There the taps are laid side by
side, and each group is one product of matrices.
"""

import jax
import jax.numpy as jnp
from jax import lax

from jgen.nn.plain import DIMENSIONS
from jgen.types import Array


def grouped_conv(x: Array, kernel: Array, groups: int) -> Array:
    """x [B, H, W, I] * kernel [h, w, I / groups, O] -> [B, H, W, O]; even sides pad one more after."""
    rows, columns = kernel.shape[:2]
    pads = tuple(((n - 1) // 2, n // 2) for n in (rows, columns))
    if jax.default_backend() != "cpu":
        return lax.conv_general_dilated(x, kernel, (1, 1), pads, dimension_numbers=DIMENSIONS, feature_group_count=groups)
    batch, height, width, inputs = x.shape
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = [padded[:, i : i + height, j : j + width] for i in range(rows) for j in range(columns)]
    seen = jnp.stack(taps, 3).reshape(batch * height * width, rows * columns, groups, inputs // groups)
    weights = kernel.reshape(rows * columns, inputs // groups, groups, -1)
    return jnp.einsum("ntgi,tigo->ngo", seen, weights).reshape(batch, height, width, -1)
