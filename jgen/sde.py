"""Diffusion as stochastic differential equations: VE, VP and sub-VP (Song et al. 2021, arXiv:2011.13456).

dx = rate(t) x dt + diffusion(t) dw for t in [0, 1], so that x_t given x_0 is N(mean(t) x_0, std(t)^2). Functions take
times float32 [B] and return [B]. Constants and tables are those of the authors' code: the sub-VP process has
std = 1 - mean^2 without a root, and tables are read at trunc(t (N - 1)).
"""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from jgen.arrays import dot, expand_dims_like
from jgen.errors import UserError
from jgen.sigmas import vp_linear
from jgen.types import Array, Denoise, Score

Function = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class SDE:
    """A process with linear drift, and its discretisation of N steps."""

    rate: Function
    diffusion: Function
    mean: Function
    std: Function
    prior_std: float
    """x_1 is taken to be N(0, prior_std^2)."""
    steps: int
    """N."""
    shift: Function
    """Shift of the discrete step that ends at t: x_i = (1 + shift) x_{i-1} + spread z."""
    spread: Function
    ancestral_std: Function | None
    """Noise of an ancestral step back; None where the authors define none."""
    time: Function
    """The time at which std / mean is the given level sigma."""
    end: float
    """Where samplers stop."""


def _check(steps: int, **bounds: tuple[float, float]) -> None:
    if steps < 1:
        raise UserError(f"steps={steps}: an SDE needs at least 1")
    for name, (low, high) in bounds.items():
        if not 0 < low < high:
            raise UserError(f"{name}_min={low}, {name}_max={high}: must be 0 < {name}_min < {name}_max")


def _lookup(table: np.ndarray) -> Function:
    """t -> table[trunc(t (N - 1))]; the slack keeps a float32 time that stands for a knot from falling below it."""
    held = jnp.asarray(table, jnp.float32)
    last = len(table) - 1

    def read(t: Array) -> Array:
        return held[jnp.clip(jnp.floor(t * last + 1e-3).astype(jnp.int32), 0, last)]

    return read


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0, steps: int = 1000) -> SDE:
    """Variance exploding: std(t) = sigma_min (sigma_max / sigma_min)^t, no drift; NCSN in the limit of many levels."""
    _check(steps, sigma=(sigma_min, sigma_max))
    ratio = sigma_max / sigma_min
    sigmas = np.geomspace(sigma_min, sigma_max, steps) if steps > 1 else np.array([sigma_max])
    before = np.append(0.0, sigmas[:-1])
    spread = np.sqrt(sigmas**2 - before**2)

    def std(t: Array) -> Array:
        return sigma_min * ratio**t

    return SDE(
        rate=jnp.zeros_like,
        diffusion=lambda t: std(t) * float(np.sqrt(2 * np.log(ratio))),
        mean=jnp.ones_like,
        std=std,
        prior_std=sigma_max,
        steps=steps,
        shift=jnp.zeros_like,
        spread=_lookup(spread),
        ancestral_std=_lookup(before * spread / sigmas),
        time=lambda sigma: jnp.log(sigma / sigma_min) / float(np.log(ratio)),
        end=1e-5,
    )


def vp(beta_min: float = 0.1, beta_max: float = 20.0, steps: int = 1000) -> SDE:
    """Variance preserving: DDPM in the limit of many steps, beta(t) linear."""
    _check(steps, beta=(beta_min, beta_max))
    betas = np.linspace(beta_min / steps, beta_max / steps, steps)
    if betas[-1] >= 1:
        raise UserError(f"steps={steps}: betas reach {betas[-1]:.3g}; more than beta_max={beta_max} steps are needed")
    log_mean = vp_linear(beta_min, beta_max).log_alpha
    return SDE(
        rate=lambda t: -0.5 * _beta(beta_min, beta_max, t),
        diffusion=lambda t: jnp.sqrt(_beta(beta_min, beta_max, t)),
        mean=lambda t: jnp.exp(log_mean(t)),
        std=lambda t: jnp.sqrt(-jnp.expm1(2 * log_mean(t))),
        prior_std=1.0,
        steps=steps,
        shift=_lookup(np.sqrt(1 - betas) - 1),
        spread=_lookup(np.sqrt(betas)),
        ancestral_std=_lookup(np.sqrt(betas)),
        time=lambda sigma: _time(beta_min, beta_max, 0.5 * jnp.log1p(sigma**2)),
        end=1e-3,
    )


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0, steps: int = 1000) -> SDE:
    """The VP process with less noise on the way, which gives better likelihoods; discretised by Euler's rule."""
    _check(steps, beta=(beta_min, beta_max))
    log_mean = vp_linear(beta_min, beta_max).log_alpha

    def diffusion(t: Array) -> Array:
        return jnp.sqrt(_beta(beta_min, beta_max, t) * -jnp.expm1(4 * log_mean(t)))

    return SDE(
        rate=lambda t: -0.5 * _beta(beta_min, beta_max, t),
        diffusion=diffusion,
        mean=lambda t: jnp.exp(log_mean(t)),
        std=lambda t: -jnp.expm1(2 * log_mean(t)),
        prior_std=1.0,
        steps=steps,
        shift=lambda t: -0.5 * _beta(beta_min, beta_max, t) / steps,
        spread=lambda t: diffusion(t) / steps**0.5,
        ancestral_std=None,
        time=lambda sigma: _time(beta_min, beta_max, jnp.arcsinh(0.5 * sigma)),
        end=1e-3,
    )


def _beta(low: float, high: float, t: Array) -> Array:
    return low + t * (high - low)


def _time(low: float, high: float, minus_log_mean: Array) -> Array:
    """The inverse of -log mean of the VP process, in a form without cancellation at small times."""
    return 4 * minus_log_mean / (low + jnp.sqrt(low**2 + 4 * (high - low) * minus_log_mean))


def perturb(sde: SDE, x0: Array, t: Array, z: Array) -> Array:
    """x_t [B, ...] of x_0 and standard normal noise z at times t [B]."""
    return expand_dims_like(sde.mean(t), x0) * x0 + expand_dims_like(sde.std(t), x0) * z


def prior_log_density(sde: SDE, x: Array) -> Array:
    """log N(x; 0, prior_std^2) in nats [B]."""
    size = x[0].size
    return -0.5 * size * float(np.log(2 * np.pi * sde.prior_std**2)) - dot(x, x) / (2 * sde.prior_std**2)


def reverse_drift(sde: SDE, score: Score, x: Array, t: Array, ode: bool = False) -> Array:
    """Drift of the process backwards in time (eq. 6), or of the probability-flow ODE (eq. 13), which has no noise."""
    return expand_dims_like(sde.rate(t), x) * x - expand_dims_like((0.5 if ode else 1.0) * sde.diffusion(t) ** 2, x) * score(
        x, t
    )


def score_of(network: Callable[[Array, Array], Array], sde: SDE) -> Score:
    """The score of a network that takes 999 t and predicts the noise, as the authors' VP and sub-VP models."""
    return lambda x, t: -network(x, 999 * t) / expand_dims_like(sde.std(t), x)


def score_of_level(network: Callable[[Array, Array], Array], sde: SDE) -> Score:
    """The score of a network that takes log sigma and predicts minus the noise, as the authors' VE models."""
    return lambda x, t: network(x, jnp.log(sde.std(t))) / expand_dims_like(sde.std(t), x)


def denoiser(sde: SDE, score: Score) -> Denoise:
    """D(x, sigma) of the continuous coordinates, by Tweedie's formula: so a score model runs under any sampler there."""

    def denoise(x: Array, sigma: Array) -> Array:
        t = jnp.clip(sde.time(jnp.broadcast_to(sigma, x.shape[:1])), 0.0, 1.0)
        mean = expand_dims_like(sde.mean(t), x)
        return x + expand_dims_like(sigma, x) ** 2 * mean * score(mean * x, t)

    return denoise
