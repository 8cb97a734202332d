"""The probability-flow ODE of an SDE: samples, latents and exact log-likelihoods, through diffrax's adaptive solver.

Song et al. 2021 (arXiv:2011.13456), section 4.3 and appendix D.2. Every image has its own steps, so image i depends on
its key alone. The divergence is Skilling's and Hutchinson's estimate v J v, whose mean over random v is exact.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError
from jgen.sde import SDE, prior_log_density, reverse_drift
from jgen.types import Array, Score

MOST_STEPS = 10_000
LEAST = 1e-5
"""Where likelihoods begin: x_0 is taken to be x at this time."""


def solve(
    field: Callable[..., Any], y: Any, start: float, end: float, rtol: float, atol: float, together: bool, *fixed: Array
) -> Any:
    """y(end) [B, ...] of dy/dt = field(t, y, *fixed), by Dormand and Prince's pair of orders 5 and 4; NaN where it fails.

    field takes a batch. Every image has its own steps; together: one step for all, short enough for each of them, which
    costs less than half on a CPU.
    """
    if not (rtol > 0 and atol > 0):
        raise UserError(f"rtol={rtol}, atol={atol}: must be above 0")
    if together:
        control = diffrax.PIDController(rtol=rtol, atol=atol, norm=_worst)
        return _solve(lambda t, y: field(t, y, *fixed), y, start, end, control)

    def one(y: Any, *fixed: Array) -> Any:
        def single(t: Any, y: Any) -> Any:
            return jax.tree.map(lambda a: a[0], field(t, *jax.tree.map(lambda a: a[None], (y, *fixed))))

        return _solve(single, y, start, end, diffrax.PIDController(rtol=rtol, atol=atol))

    return jax.vmap(one)(y, *fixed)


def _solve(field: Callable[[Any, Any], Any], y: Any, start: float, end: float, control: Any) -> Any:
    solution = diffrax.diffeqsolve(
        diffrax.ODETerm(lambda t, y, _: field(t, y)),
        diffrax.Dopri5(),
        start,
        end,
        None,
        y,
        stepsize_controller=control,
        adjoint=diffrax.ForwardMode(),
        max_steps=MOST_STEPS,
        throw=False,
    )
    fine = solution.result == diffrax.RESULTS.successful
    assert solution.ys is not None
    return jax.tree.map(lambda a: jnp.where(fine, a[-1], jnp.nan), solution.ys)


def _worst(y: Any) -> Array:
    """The greatest root mean square of any image."""
    flat = jnp.concatenate([a.reshape(len(a), -1) for a in jax.tree.leaves(y)], -1)
    return jnp.max(jnp.sqrt(jnp.mean(jnp.square(flat), -1)))


def flow(
    sde: SDE,
    score: Score,
    x: Array,
    *,
    start: float = 1.0,
    end: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    together: bool = False,
) -> Array:
    """x [B, ...] carried along the ODE from one time to another: by default from the prior to an image.

    start=1e-5, end=1.0 gives the latent of an image. together: as of `solve`.
    """
    end = sde.end if end is None else end
    return solve(_drift(sde, score), x, start, end, rtol, atol, together)


def _drift(sde: SDE, score: Score) -> Callable[[Any, Array], Array]:
    """The ODE's right-hand side for a batch at one time []."""
    return lambda t, x: reverse_drift(sde, score, x, jnp.broadcast_to(jnp.asarray(t, x.dtype), x.shape[:1]), ode=True)


def log_likelihood(
    sde: SDE,
    score: Score,
    x: Array,
    probes: Array,
    *,
    start: float = LEAST,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    together: bool = False,
) -> tuple[Array, Array]:
    """(log-density in nats [B], latent [B, ...]) of x.

    probes: [B, ...] of unit variance, such as `jgen.objectives.score.projections` makes. together: as of `solve`.
    """
    drift = _drift(sde, score)

    def field(t: Any, y: tuple[Array, Array], v: Array) -> tuple[Array, Array]:
        velocity, pull = jax.vjp(lambda x: drift(t, x), y[0])
        return velocity, jnp.sum((v * pull(v)[0]).reshape(len(v), -1), -1)

    z, change = solve(field, (x, jnp.zeros(len(x), x.dtype)), start, 1.0, rtol, atol, together, probes)
    return prior_log_density(sde, z) + change, z


def bits_per_dim(sde: SDE, score: Score, x: Array, probes: Array, **how: Any) -> tuple[Array, Array]:
    """(bits a dimension [B], latents) of 256-level images that were dequantised and mapped to [-1, 1]; how: as above."""
    value, z = log_likelihood(sde, score, x, probes, **how)
    return -value / (x[0].size * float(np.log(2))) + 7.0, z
