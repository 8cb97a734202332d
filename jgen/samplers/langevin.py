"""Langevin dynamics: plain, Metropolis-adjusted, and annealed from one noise level to the next.

x <- x + eps s(x) + sqrt(2 eps) z leaves the density whose score is s almost unchanged: its bias falls with eps, and an
accept-reject step (Roberts & Tweedie 1996) takes it away. Annealed: Song & Ermon 2019 (arXiv:1907.05600, algorithm 1), 2020
(arXiv:2006.09011); consistent: Jolicoeur-Martineau et al. 2021 (arXiv:2009.05475, algorithm 2).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.arrays import dot, expand_dims_like
from jgen.errors import UserError
from jgen.samplers.common import Trace, check_finite, check_keys, noise
from jgen.types import Array, Key, Score

Field = Callable[[Array], Array]
"""x [B, ...] -> gradient of the log-density, of x's shape."""


def langevin_step(x: Array, score: Array, step_size: Any, z: Array) -> Array:
    """x + eps s + sqrt(2 eps) z."""
    return x + step_size * score + jnp.sqrt(2 * step_size) * z


def unadjusted_langevin(score: Field, x: Array, keys: Key, *, steps: int, step_size: float, trace: Trace | None = None) -> Any:
    """x [B, ...] after so many steps; (x, traces) with a trace(x, score)."""
    _check(steps, step_size)
    check_keys(keys, x)

    def body(x: Array, i: Array) -> tuple[Array, Any]:
        s = score(x)
        check_finite(s, "score", i)
        x = langevin_step(x, s, jnp.asarray(step_size, x.dtype), noise(keys, x.shape[1:], i)).astype(x.dtype)
        return x, None if trace is None else trace(x, s)

    x, traces = lax.scan(body, x, jnp.arange(steps))
    return x if trace is None else (x, traces)


def metropolis_langevin(
    log_density: Callable[[Array], Array], x: Array, keys: Key, *, steps: int, step_size: float, trace: Trace | None = None
) -> Any:
    """(x [B, ...], share of proposals accepted [B]) of the Metropolis-adjusted algorithm.

    log_density: x -> [B], up to a constant. With a trace, (x, share, traces). The stationary density is exact at any step size.
    """
    _check(steps, step_size)
    check_keys(keys, x)

    def both(x: Array) -> tuple[Array, Array]:
        value, pull = jax.vjp(log_density, x)
        return value, pull(jnp.ones_like(value))[0]

    def log_proposal(to: Array, of: Array, score: Array) -> Array:
        gap = to - of - step_size * score
        return -dot(gap, gap) / (4 * step_size)

    def body(carry: tuple[Array, Array, Array, Array], i: Array) -> tuple[Any, Any]:
        x, value, score, accepted = carry
        check_finite(score, "score", i)
        new = langevin_step(x, score, step_size, noise(keys, x.shape[1:], i)).astype(x.dtype)
        new_value, new_score = both(new)
        ratio = new_value - value + log_proposal(x, new, new_score) - log_proposal(new, x, score)
        u = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, 1 << 30), i)))(keys)
        keep = jnp.log(u) < ratio
        x = jnp.where(expand_dims_like(keep, x), new, x)
        score = jnp.where(expand_dims_like(keep, x), new_score, score)
        carry = (x, jnp.where(keep, new_value, value), score, accepted + keep)
        return carry, None if trace is None else trace(x, score)

    start = (x, *both(x), jnp.zeros(len(x)))
    (x, _, _, accepted), traces = lax.scan(body, start, jnp.arange(steps))
    return (x, accepted / steps) if trace is None else (x, accepted / steps, traces)


def annealed_langevin(
    score: Score,
    x: Array,
    sigmas: Any,
    keys: Key,
    *,
    steps_each: int,
    step_size: float,
    denoise: bool = True,
    trace: Trace | None = None,
) -> Any:
    """Langevin dynamics at each of the falling levels sigmas [L] in turn, steps_each at each.

    The step at a level is step_size (sigma / sigmas[-1])^2, the papers' rule. denoise: NCSNv2's last step, x + sigma^2 s at
    the lowest level, without noise. With a trace, (x, traces), one a step [L, steps_each, ...]. Raises UserError for levels
    that do not fall or are not above 0, and for steps_each or step_size below 1 or 0.
    """
    levels = falling(sigmas)
    _check(steps_each, step_size, "steps_each")
    check_keys(keys, x)
    sizes = step_size * (levels / levels[-1]) ** 2

    def level(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        i, sigma, size = row

        def body(x: Array, j: Array) -> tuple[Array, Any]:
            index = i * steps_each + j
            s = score(x, jnp.broadcast_to(sigma, x.shape[:1]))
            check_finite(s, "score", index, sigma)
            x = langevin_step(x, s, size, noise(keys, x.shape[1:], index)).astype(x.dtype)
            return x, None if trace is None else trace(x, s)

        return lax.scan(body, x, jnp.arange(steps_each))

    x, traces = lax.scan(level, x, (jnp.arange(len(levels)), jnp.asarray(levels, x.dtype), jnp.asarray(sizes, x.dtype)))
    if denoise:
        last = jnp.full(x.shape[:1], levels[-1], x.dtype)
        x = x + expand_dims_like(last, x) ** 2 * score(x, last)
    return x if trace is None else (x, traces)


def consistent_langevin(
    score: Score, x: Array, sigmas: Any, keys: Key, *, share: float = 0.5, denoise: bool = True, trace: Trace | None = None
) -> Any:
    """Consistent annealed sampling: after every step the noise left in x has just the next level where the score points at the
    clean image itself, as of a set of one image; others come out too narrow, the less so the smaller the share.

    x <- x + share sigma_i^2 s + beta sigma_{i+1} z with beta^2 = 1 - ((1 - share) sigma_i / sigma_{i+1})^2, so the levels
    sigmas [L] must fall by no more than the factor 1 - share each. A step a level: give it as many levels as steps.
    """
    levels = falling(sigmas)
    after = np.append(levels[1:], levels[-1] if len(levels) == 1 else levels[-1] ** 2 / levels[-2])
    beta = 1 - ((1 - share) * levels / after) ** 2
    if not 0 < share <= 1 or beta.min() < 0:
        raise UserError(
            f"share={share}: must be in (0, 1] and at least 1 - {np.min(after / levels):.4g}, by the fall of sigmas"
        )
    check_keys(keys, x)
    rows = (jnp.arange(len(levels)), jnp.asarray(levels, x.dtype), jnp.asarray(np.sqrt(beta) * after, x.dtype))

    def body(x: Array, row: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        i, sigma, spread = row
        s = score(x, jnp.broadcast_to(sigma, x.shape[:1]))
        check_finite(s, "score", i, sigma)
        x = (x + share * sigma**2 * s + spread * noise(keys, x.shape[1:], i)).astype(x.dtype)
        return x, None if trace is None else trace(x, s)

    x, traces = lax.scan(body, x, rows)
    if denoise:
        last = jnp.full(x.shape[:1], after[-1], x.dtype)
        x = x + expand_dims_like(last, x) ** 2 * score(x, last)
    return x if trace is None else (x, traces)


def step_size_for(sigmas: Any, steps_each: int) -> float:
    """NCSNv2's technique 4: the step size at which the noise settles to each level in steps_each steps.

    The variance ratio at the end of a level, by eq. 10 for a point mass, comes nearest to 1.
    """
    levels = falling(sigmas)
    if len(levels) < 2:
        raise UserError(f"sigmas: {len(levels)} level; a step size follows from the ratio of at least 2")
    ratio, last = levels[0] / levels[1], levels[-1]
    candidates = np.geomspace(1e-4, 1.0, 100_000) * last**2
    keep = (1 - candidates / last**2) ** (2 * steps_each)
    fresh = 2 * candidates / (last**2 - last**2 * (1 - candidates / last**2) ** 2)
    return float(candidates[np.argmin(np.abs(keep * (ratio**2 - fresh) + fresh - 1))])


def geometric(sigma_max: float, sigma_min: float, levels: int) -> np.ndarray:
    """Falling levels [L] in geometric progression, as both papers take them."""
    if levels < 1 or not 0 < sigma_min < sigma_max:
        raise UserError(
            f"levels={levels}, sigma_min={sigma_min}, sigma_max={sigma_max}: need 1 level, 0 < sigma_min < sigma_max"
        )
    return np.geomspace(sigma_max, sigma_min, levels)


def falling(sigmas: Any) -> np.ndarray:
    """The levels as float64 [L]. Raises UserError unless they fall and are above 0."""
    levels = np.asarray(sigmas, np.float64)
    if levels.ndim != 1 or not len(levels) or np.any(np.diff(levels) >= 0) or levels[-1] <= 0:
        raise UserError(f"sigmas={np.array2string(levels, threshold=6, precision=4)}: must fall, and stay above 0")
    return levels


def _check(steps: int, step_size: float, name: str = "steps") -> None:
    if steps < 1:
        raise UserError(f"{name}={steps}: a sampler needs at least 1")
    if not step_size > 0:
        raise UserError(f"step_size={step_size}: must be above 0")
