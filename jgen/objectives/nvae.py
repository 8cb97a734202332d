"""NVAE's objective (Vahdat & Kautz 2020, arXiv:2007.03898): the bound with balanced KLs, and spectral regularisation.

The settings are of the authors' code (NVlabs/NVAE), in nats an image.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.models.nvae import Draw, Group
from jgen.models.nvae_conv import effective_kernel
from jgen.nn.flow import per_image
from jgen.nn.spectral import power_iteration
from jgen.objectives.likelihood import Likelihood
from jgen.objectives.residual_normal import Normal, clamped, residual
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree

ITERATIONS = 4
"""Steps of the power method in an update; ten times as many are made at the start."""


def prior_of(group: Group, temperature: float | Array = 1.0) -> Normal:
    """The prior of a group, its deviation times the temperature."""
    return clamped(*group.prior, temperature)


def posterior_of(group: Group) -> Normal:
    """The posterior of a group that has seen an image."""
    assert group.residual is not None
    return residual(*group.residual, *group.prior)


def kl_of(group: Group) -> Array:
    """KL(posterior || prior) of a group that has seen an image, number by number [B, side, side, latents], in nats.

    In closed form without flows; with them log q(z_0) - log p(z_K) at its draw z_0, which they move to z_K at equal density.
    """
    if group.drawn is None:
        return posterior_of(group).kl(prior_of(group))
    assert group.latents is not None
    return posterior_of(group).log_prob(group.drawn) - prior_of(group).log_prob(group.latents)


def from_posteriors(noise: Sequence[Array]) -> Draw:
    """Latents of standard normal noise [B, side, side, latents] for each group."""
    return lambda k, group: posterior_of(group).sample(noise[k])


def from_priors(noise: Sequence[Array], temperature: float | Array = 1.0) -> Draw:
    """Latents of the priors, of standard normal noise for each group."""
    return lambda k, group: prior_of(group, temperature).sample(noise[k])


def kl_weight(step: Array, steps: float, constant: float, least: float) -> Array:
    """The KL's weight: `least`, then from step `constant` on (step - constant) / steps up to 1."""
    return jnp.maximum(jnp.minimum((step - constant) / max(steps, 1e-9), 1.0), least)


def balance_factors(groups: Sequence[int]) -> np.ndarray:
    """alpha of every group from the top down: the square of its scale's side over the groups there, the least of them 1."""
    found = [4.0**s / count for s, count in enumerate(reversed(groups)) for _ in range(count)]
    return np.array(found) / min(found)


def balance(kls: Array, factors: np.ndarray) -> Array:
    """Weights [K] of the groups' KLs [B, K], of mean 1: in proportion to their means, over the factors; no gradient."""
    size = (jnp.mean(jnp.abs(kls), 0) + 0.01) / factors
    return jax.lax.stop_gradient(size / jnp.mean(size))


def matrices(params: PyTree) -> dict[str, Array]:
    """All kernels of convolutions as the network uses them: {"OxR": [how many, O, R]}, stacked by shape."""
    found: dict[str, list[Array]] = {}
    for layer in _layers(params):
        kernel = effective_kernel(layer)
        if kernel is not None:
            matrix = kernel.reshape(-1, kernel.shape[-1]).T
            found.setdefault("x".join(map(str, matrix.shape)), []).append(matrix)
    return {name: jnp.stack(each) for name, each in found.items()}


def _layers(tree: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    inner = [layer for child in tree.values() if isinstance(child, Mapping) for layer in _layers(child)]
    return [tree, *inner]


def spectral_start(key: Key, params: PyTree) -> dict[str, Array]:
    """The vectors u [how many, O] of all kernels, after ten times the steps of an update."""
    stacks = matrices(params)
    u = {name: jax.random.normal(jax.random.fold_in(key, i), m.shape[:2]) for i, (name, m) in enumerate(stacks.items())}
    return spectral_norms(stacks, u, 10 * ITERATIONS)[1]


def spectral_norms(
    stacks: Mapping[str, Array], u: Mapping[str, Array], steps: int = ITERATIONS
) -> tuple[Array, dict[str, Array]]:
    """(the sum of the kernels' greatest singular values, the next u) by so many steps of the power method from u."""

    def step(stacks: Mapping[str, Array], u: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
        total, after = jnp.zeros(()), {}
        for name, stack in stacks.items():
            values, now = jax.vmap(lambda matrix, u: power_iteration(matrix, u, 1e-3))(stack, u[name][:, None])
            total, after[name] = total + jnp.sum(values), now[:, 0]
        return total, after

    frozen = jax.lax.stop_gradient(dict(stacks))
    u = jax.lax.fori_loop(0, steps - 1, lambda _, u: step(frozen, u)[1], dict(u))
    return step(stacks, u)


def greatest_gains(params: PyTree) -> Array:
    """The sum over all batch normalisations of their greatest absolute gain."""
    return sum((jnp.max(jnp.abs(layer["scale"])) for layer in _layers(params) if "scale" in layer), jnp.zeros(()))


class Training(NamedTuple):
    """How the bound is trained on; steps are updates."""

    anneal: float
    """Steps over which the KL's weight rises,"""
    constant: float
    """after so many at"""
    least: float
    """this weight."""
    factors: np.ndarray
    """Each group's, as `balance_factors` gives them."""
    spectral: float
    """Weight of the regularisation,"""
    spectral_first: float
    """which begins from this where it is not 0."""


Apply = Callable[[Params, Extra, Array, Draw, bool], tuple[Array, list[Group], Extra]]
"""(params, extra, images, how latents are drawn, train) -> (the likelihood's outputs, groups, entries of extra that change)."""


def nvae(
    apply: Apply,
    law: Likelihood,
    shapes: Sequence[Sequence[int]],
    training: Training | None = None,
    prepare: Callable[[Key, Array], Array] | None = None,
) -> LossFn:
    """-log p(x | z) + KL, mean over the batch, in nats an image; None trains nothing and gives the bound itself.

    In training extra["updates"] counts, and extra["spectral"] holds the power method's vectors. prepare(key, x): a stochastic
    change of the images first, such as `jgen.objectives.vae.binarize`.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x = prepare(jax.random.fold_in(key, 1 << 20), batch["image"]) if prepare else batch["image"]
        noise = [jax.random.normal(jax.random.fold_in(key, i), (len(x), *shape)) for i, shape in enumerate(shapes)]
        outputs, groups, changed = apply(params, extra, x, from_posteriors(noise), training is not None)
        kls = jnp.stack([per_image(kl_of(group)) for group in groups], 1)
        reconstruction = -jnp.mean(jnp.sum(law.log_prob(outputs, x), (1, 2)))
        kl = jnp.mean(jnp.sum(kls, 1))
        metrics = {"reconstruction": reconstruction, "kl": kl, "bound": reconstruction + kl}
        if training is None:
            return reconstruction + kl, (extra, metrics)
        weight = kl_weight(extra["updates"], training.anneal, training.constant, training.least)
        balanced = jnp.mean(kls @ jnp.where(weight < 1, balance(kls, training.factors), 1.0))
        norms, u = spectral_norms(matrices(params["net"]), extra["spectral"])
        strength = _strength(training, weight)
        value = reconstruction + weight * balanced + strength * (norms + greatest_gains(params["net"]))
        extra = {**extra, **changed, "spectral": u, "updates": extra["updates"] + 1}
        return value, (extra, {**metrics, "kl_weight": weight, "spectral_norms": norms})

    return loss


def _strength(training: Training, weight: Array) -> Array | float:
    if not training.spectral_first:
        return training.spectral
    return training.spectral_first ** (1 - weight) * training.spectral**weight
