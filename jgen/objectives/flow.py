"""The negative log-likelihood of flows, dequantisation, and TarFlow's loss and denoising.

Images in [-1, 1] hold 2^bits levels. A density is taken of values with noise that fills a level's width: uniform, or drawn by a
flow of its own (variational dequantisation; Ho et al. 2019, arXiv:1902.00275).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

LogProb = Callable[[Params, Extra, Array, Array | None], Array]
"""(params, extra, images in [-0.5, 0.5) [B, H, W, C], label) -> log density in nats [B]."""
Dequantize = Callable[[Params, Key, Array], tuple[Array, Array]]
"""(params, key, levels of the images in [-0.5, 0.5)) -> (noise in [0, 1) of a level's width, log of its density [B])."""


def levels_of(x: Array, bits: int) -> Array:
    """8-bit images in [-1, 1] as 2^bits levels v / 2^bits - 1/2, the lower bits dropped (Kingma & Dhariwal 2018)."""
    v = jnp.round((x + 1) * 127.5)
    return jnp.floor(v / 2 ** (8 - bits)) / 2**bits - 0.5


def images_of(x: Array, bits: int) -> Array:
    """Values in [-0.5, 0.5) as images in [-1, 1], at the lower ends of their levels."""
    v = jnp.clip(jnp.floor((x + 0.5) * 2**bits), 0, 2**bits - 1)
    return v / (2**bits - 1) * 2 - 1


def uniform(params: Params, key: Key, x: Array) -> tuple[Array, Array]:
    """Uniform dequantisation, of density 1."""
    return jax.random.uniform(key, x.shape), jnp.zeros(x.shape[:1])


def flow_nll(
    log_prob: LogProb, *, bits: int = 8, conditional: bool = False, dequantize: Dequantize = uniform, samples: int = 1
) -> LossFn:
    """-log p(image) under a flow, mean over the batch, in nats a dimension of the 2^bits levels.

    samples > 1: the mean over so many draws of the noise. The metric "bits_per_dim" is the loss in bits.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x, label = levels_of(batch["image"], bits), batch["label"] if conditional else None
        size = x[0].size

        def one(key: Key) -> Array:
            noise, log_density = dequantize(params, key, x)
            found = log_prob(params, extra, x + noise / 2**bits, label) - log_density
            return jnp.mean(bits * math.log(2) - found / size)

        value = one(key) if samples == 1 else jnp.mean(jax.lax.map(one, jax.random.split(key, samples)))
        return value, (extra, {"bits_per_dim": value / math.log(2)})

    return loss


Through = Callable[[Params, Array, Array | None], tuple[Array, Array]]
"""(params, images [B, S, S, C], label) -> (latents, log-determinant a dimension [B])."""


def flow_energy(z: Array, logdet: Array) -> Array:
    """TarFlow's loss: mean z^2 / 2 - log-determinant, a dimension, mean over the batch; without the Gaussian's constant."""
    return 0.5 * jnp.mean(jnp.square(z)) - jnp.mean(logdet)


def tarflow_nll(z: Array, logdet: Array) -> Array:
    """-log density [B] a dimension, in nats, of images under a flow to N(0, 1)."""
    axes = tuple(range(1, z.ndim))
    return 0.5 * jnp.mean(jnp.square(z), axes) + 0.5 * math.log(2 * math.pi) - logdet


def noisy_flow(through: Through, *, noise: float = 0.05, drop_label: float = 0.0, conditional: bool = False) -> LossFn:
    """TarFlow's training (arXiv:2412.06329, section 2.3): Gaussian noise on images in [-1, 1], and labels dropped to -1.

    With noise=0 the images get uniform noise of a level's width, so that the metric "bits_per_dim" is of the 8-bit values.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x, (noise_key, drop_key) = batch["image"], jax.random.split(key)
        label = None
        if conditional:
            dropped = jax.random.uniform(drop_key, x.shape[:1]) < drop_label
            label = jnp.where(dropped, -1, batch["label"])
        x = x + noise * jax.random.normal(noise_key, x.shape) if noise else in_cells(noise_key, x)
        z, logdet = through(params, x, label)
        value = flow_energy(z, logdet)
        bits = (jnp.mean(tarflow_nll(z, logdet)) + math.log(128)) / math.log(2)
        return value, (extra, {"bits_per_dim": bits})

    return loss


def in_cells(key: Key, x: Array) -> Array:
    """8-bit images in [-1, 1] moved to 2 (v + u) / 256 - 1, with u uniform in [0, 1)."""
    return 2 * (jnp.round((x + 1) * 127.5) + jax.random.uniform(key, x.shape)) / 256 - 1


def denoised(energy: Callable[[Array], Array], x: Array, noise: float) -> Array:
    """x + noise^2 score(x) for samples of a model of noisy images (Tweedie; arXiv:2412.06329, equation 6).

    energy(x): `flow_energy`, a mean over the batch and the dimensions; so the score is -(their number) times its gradient.
    """
    return x - noise**2 * x.size * jax.grad(lambda x: energy(x))(x)
