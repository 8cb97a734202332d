"""The bound of hierarchical VAEs, in nats a dimension (Child 2021, arXiv:2011.10650)."""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

from jgen.nn.flow import per_image
from jgen.objectives.likelihood import Likelihood
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params

Posterior = Callable[[Params, Array, list[Array]], tuple[Array, list[Array]]]
"""(params, images, noise for each latent) -> (outputs of the likelihood, the KL of every latent's numbers [B, ...])."""


def hierarchical_elbo(posterior: Posterior, law: Likelihood, shapes: Sequence[Sequence[int]]) -> LossFn:
    """Distortion + rate: -log p(x | z) and the sum of the latents' KLs, a dimension, mean over the batch."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x = batch["image"]
        noise = normals(key, shapes, len(x))
        outputs, kls = posterior(params, x, noise)
        distortion = -jnp.mean(law.log_prob(outputs, x)) / x.shape[-1]
        rate = sum((jnp.mean(per_image(kl)) for kl in kls), jnp.zeros(())) / x[0].size
        bits = {"bits_per_dim": distortion + rate, "distortion_bits": distortion, "rate_bits": rate}
        return distortion + rate, (extra, {name: value / math.log(2) for name, value in bits.items()})

    return loss


def normals(key: Key, shapes: Sequence[Sequence[int]], batch: int) -> list[Array]:
    """Standard normal noise [batch, *shape] for each shape."""
    return [jax.random.normal(jax.random.fold_in(key, i), (batch, *shape)) for i, shape in enumerate(shapes)]
