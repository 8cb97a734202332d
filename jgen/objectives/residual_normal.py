"""NVAE's soft-clamped normals (Vahdat & Kautz 2020, arXiv:2007.03898): priors, and posteriors relative to them."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jgen.types import Array

LEAST = 0.01
"""Added to every deviation."""


def soft_clamp(x: Array, limit: float = 5.0) -> Array:
    """limit tanh(x / limit): x near 0, and never beyond +-limit."""
    return limit * jnp.tanh(x / limit)


class Normal(NamedTuple):
    """A normal distribution, number by number."""

    mean: Array
    deviation: Array

    def sample(self, noise: Array) -> Array:
        return self.mean + self.deviation * noise

    def log_prob(self, z: Array) -> Array:
        return -0.5 * jnp.square((z - self.mean) / self.deviation) - 0.5 * float(np.log(2 * np.pi)) - jnp.log(self.deviation)

    def kl(self, other: "Normal") -> Array:
        """The KL divergence from `other`, in nats."""
        gap, ratio = (self.mean - other.mean) / other.deviation, self.deviation / other.deviation
        return 0.5 * (jnp.square(gap) + jnp.square(ratio)) - 0.5 - jnp.log(ratio)


def clamped(mean: Array, log_deviation: Array, temperature: float | Array = 1.0) -> Normal:
    """A normal of raw parameters: both are softly clamped to +-5, and 0.01 is added to the deviation, which the temperature
    then multiplies."""
    return Normal(soft_clamp(mean), (jnp.exp(soft_clamp(log_deviation)) + LEAST) * temperature)


def residual(mean: Array, log_deviation: Array, prior_mean: Array, prior_log_deviation: Array) -> Normal:
    """A posterior whose raw parameters are added to the prior's raw ones before the clamp (equation 3)."""
    return clamped(prior_mean + mean, prior_log_deviation + log_deviation)
