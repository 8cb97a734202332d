"""Embeddings of scalars."""

import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.precision import at_least_float32
from jgen.types import Array


def timestep_embedding(t: Array, width: int, max_period: float = 10000.0, endpoint: bool = False) -> Array:
    """Sinusoidal embedding [B, width] of times t [B]: cosines first, then sines, frequencies max_period^(-k / half).

    With `endpoint` the exponent is k / (half - 1), so that the longest period is max_period itself. The layout of
    guided-diffusion; an odd width ends in a zero. Vaswani et al. 2017, section 3.5. Raises UserError for a width of 1, which
    would hold no time.
    """
    if width < 2:
        raise UserError(f"channels={width}: must be at least 2, since times are embedded in so many numbers")
    half = width // 2
    frequencies = jnp.exp(-jnp.log(max_period) * jnp.arange(half) / (half - endpoint))
    angles = at_least_float32(t)[:, None] * frequencies[None]
    parts = [jnp.cos(angles), jnp.sin(angles)]
    return jnp.concatenate(parts + [jnp.zeros_like(angles[:, :1])] * (width % 2), axis=-1)
