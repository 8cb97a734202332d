"""Standing statistics of batch normalisation (Brock et al. 2018, arXiv:1809.11096, section 3)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jgen.types import PyTree


def standing_statistics(apply: Callable[..., Any], variables: dict[str, Any], inputs: tuple[PyTree, ...]) -> dict[str, Any]:
    """Variables whose "batch_stats" are means over passes of the batches' own means and biased variances.

    apply: a module's, with the arguments (variables, *inputs, train=, mutable=). inputs: arrays [passes, B, ...], such as
    latents as truncated as those of the images to come: other latents have other statistics. The passes are training
    ones, so that the vectors of spectral normalisation move on, as in the author's code.
    """
    kept = {"spectral": variables["spectral"]} if "spectral" in variables else {}

    def one(state: dict[str, Any], batch: tuple[PyTree, ...]) -> tuple[dict[str, Any], PyTree]:
        collections = [*state, "batch_stats", "moments"]
        _, found = apply({**variables, **state}, *batch, train=True, mutable=collections)
        return {name: found[name] for name in state}, found["moments"]

    state, moments = lax.scan(one, kept, inputs)
    return {**variables, **state, "batch_stats": jax.tree.map(lambda each: jnp.mean(each, 0), moments)}
