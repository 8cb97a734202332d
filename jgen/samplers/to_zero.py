"""Samplers that stop at the least level above 0, followed by the denoising step that gives the clean image.

Each is called as the others of the continuous coordinates: (denoise, x, sigmas [N + 1] with 0 last, keys).
"""

from typing import Any

import jax.numpy as jnp

from jgen.samplers import adaptive, euler_heun
from jgen.samplers.linear import Parameterization
from jgen.types import Array, Denoise, Key


def final_denoise(denoise: Denoise, x: Array, sigma: float) -> Array:
    """The clean image [B, H, W, C] of x at a small noise level."""
    return denoise(x, jnp.full(len(x), sigma, x.dtype))


def plms(denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None) -> Array:
    """`euler_heun.plms` down to the last level above 0; with one step, that step is the denoising alone."""
    if len(sigmas) > 2:
        x = euler_heun.plms(denoise, x, sigmas[:-1])
    return final_denoise(denoise, x, sigmas[-2])


def dpm_adaptive(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key | None = None,
    *,
    tolerance: float,
    order: int = 2,
    parameterization: Parameterization = "data",
    eta: float = 0.0,
    s_noise: float = 1.0,
) -> Array:
    """`adaptive.dpm_adaptive` from the greatest level of sigmas to its last above 0, in steps of its own."""
    x = adaptive.dpm_adaptive(
        denoise, x, sigmas[-2], sigmas[0], order=order, parameterization=parameterization, rtol=tolerance, atol=tolerance,
        eta=eta, s_noise=s_noise, keys=keys,
    )  # fmt: skip
    return final_denoise(denoise, x, sigmas[-2])


def rk45(denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, tolerance: float) -> Array:
    """`adaptive.rk45` from the greatest level of sigmas to its last above 0, in steps of its own."""
    x = adaptive.rk45(denoise, x, sigmas[-2], sigmas[0], rtol=tolerance, atol=tolerance)
    return final_denoise(denoise, x, sigmas[-2])
