"""Score matching: explicit, sliced, denoising, and along an SDE. Every function returns one loss an image [B].

A score is s(x) ~ grad log p(x); an energy f(x) [B] gives the score -grad f (`of_energy`). Sources: Hyvarinen 2005
(explicit), Vincent 2011 (denoising), Song et al. 2019 (sliced, arXiv:1905.07088), Song & Ermon 2019 (many levels,
arXiv:1907.05600), Song et al. 2021 (SDEs, arXiv:2011.13456; likelihood weighting, arXiv:2101.09258). Every function takes
its random draws as arguments; the losses at the end draw them.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jgen.arrays import dot, expand_dims_like
from jgen.errors import UserError
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning
from jgen.sde import SDE, perturb
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, Score

Field = Callable[[Array], Array]
"""x [B, ...] -> score of the same shape."""


def of_energy(energy: Callable[[Array], Array]) -> Field:
    """The score of an energy function: x [B, ...] -> -grad f(x), where f(x) [B] = -log p(x) + const."""
    return lambda x: -jax.grad(lambda x: jnp.sum(energy(x)))(x)


def explicit(score: Field, x: Array) -> Array:
    """|s|^2 / 2 + trace of its Jacobian, exact: one pass back a dimension, so for few dimensions only."""

    def trace(one: Array) -> Array:
        jacobian = jax.jacrev(lambda flat: score(flat.reshape(1, *one.shape)).reshape(-1))(one.reshape(-1))
        return jnp.trace(jacobian)

    s = score(x)
    return 0.5 * dot(s, s) + jax.vmap(trace)(x)


def projections(key: Key, shape: tuple[int, ...], kind: Literal["rademacher", "sphere", "gaussian"] = "rademacher") -> Array:
    """Random directions [B, ...] for sliced score matching; on the sphere their length is the root of the dimension."""
    if kind == "rademacher":
        return jax.random.rademacher(key, shape, jnp.float32)
    v = jax.random.normal(key, shape)
    if kind == "gaussian":
        return v
    if kind != "sphere":
        raise UserError(f"kind={kind}: must be rademacher, sphere or gaussian")
    return v * expand_dims_like(jnp.sqrt(v[0].size / dot(v, v)), v)


def sliced(score: Field, x: Array, v: Array, *, reduced: bool = True) -> Array:
    """v J v + |s|^2 / 2 for given directions v; reduced=False: (v s)^2 / 2 in place of the norm, with more variance."""
    s, pull = jax.vjp(score, x)
    curvature = dot(v, pull(v)[0])
    return curvature + 0.5 * (dot(s, s) if reduced else dot(v, s) ** 2)


def denoising(score: Score, x: Array, sigma: Array, eps: Array, power: float = 0.0) -> Array:
    """sigma^power |s(x + sigma eps, sigma) + eps / sigma|^2 / 2 at levels sigma [B].

    With many levels the papers take power 2.
    """
    s = score(x + expand_dims_like(sigma, x) * eps, sigma)
    error = s + eps / expand_dims_like(sigma, x)
    return sigma**power * 0.5 * dot(error, error)


def along(sde: SDE, score: Score, x0: Array, t: Array, z: Array, *, likelihood: bool = False, mean: bool = False) -> Array:
    """Denoising score matching at times t [B] of an SDE: |std s + z|^2 / 2, or weighed by diffusion^2 / std^2.

    The latter is the likelihood weighting: its integral bounds the log-likelihood. mean: the mean over pixels in place
    of half the sum.
    """
    s = score(perturb(sde, x0, t, z), t)
    error = s * expand_dims_like(sde.std(t), x0) + z
    weight = (sde.diffusion(t) / sde.std(t)) ** 2 if likelihood else jnp.ones_like(t)
    return weight * dot(error, error) * (1 / x0[0].size if mean else 0.5)


Apply = Callable[..., Array]
"""(params, x, sigma or t [B], condition, *, rngs=None, train=False) -> score."""


def annealed(apply: Apply, sigmas: Array, *, power: float = 2.0, **how: Any) -> LossFn:
    """NCSN's loss: denoising score matching at a level drawn for each image from `sigmas` [L], weighed by sigma^power.

    how, here and below: player ("net"), conditioning (the condition that apply takes of the batch), train (dropout is on).
    """

    def terms(score: Score, x: Array, key: Key) -> Array:
        return denoising(score, x, *_level_and_noise(key, x, sigmas), power)

    return _trained(apply, terms, **how)


def annealed_sliced(apply: Apply, sigmas: Array, **how: Any) -> LossFn:
    """Sliced score matching of images perturbed at a level drawn from `sigmas` [L], weighed by sigma^2."""

    def terms(score: Score, x: Array, key: Key) -> Array:
        noise_key, slice_key = jax.random.split(key)
        sigma, eps = _level_and_noise(noise_key, x, sigmas)
        noisy = x + expand_dims_like(sigma, x) * eps
        return sigma**2 * sliced(lambda x: score(x, sigma), noisy, projections(slice_key, x.shape))

    return _trained(apply, terms, **how)


def continuous(
    apply: Apply, sde: SDE, *, likelihood: bool = False, least: float = 1e-5, mean: bool = True, **how: Any
) -> LossFn:
    """`along` at a time drawn for each image from [least, 1]; apply takes the time. mean: over pixels, else half the sum."""

    def terms(score: Score, x: Array, key: Key) -> Array:
        time_key, noise_key = jax.random.split(key)
        t = jax.random.uniform(time_key, x.shape[:1], minval=least, maxval=1.0)
        return along(sde, score, x, t, jax.random.normal(noise_key, x.shape), likelihood=likelihood, mean=mean)

    return _trained(apply, terms, **how)


def _level_and_noise(key: Key, x: Array, sigmas: Array) -> tuple[Array, Array]:
    level_key, noise_key = jax.random.split(key)
    return jax.random.choice(level_key, jnp.asarray(sigmas), x.shape[:1]), jax.random.normal(noise_key, x.shape)


def _trained(
    apply: Apply,
    terms: Callable[[Score, Array, Key], Array],
    *,
    player: str = "net",
    conditioning: Conditioning = UNCONDITIONAL,
    train: bool = True,
) -> LossFn:
    """The training loss that is the mean of terms(score, images, key)."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        terms_key, dropout_key = jax.random.split(key)
        condition = conditioning.draw(jax.random.fold_in(key, 2), batch, train)

        def score(x: Array, level: Array) -> Array:
            return apply(params[player], x, level, condition, rngs={"dropout": dropout_key}, train=train)

        return jnp.mean(terms(score, batch["image"], terms_key)), (extra, {})

    return loss
