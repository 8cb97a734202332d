"""The probability-flow ODE of an SDE: samples, latents and exact log-likelihoods, through diffrax's adaptive solver.

Song et al. 2021 (arXiv:2011.13456), section 4.3 and appendix D.2. It is solved for y = cos(a) x_0 + sin(a) noise against
the angle a = arctan(std / mean), in which every SDE is the same path and dy / da = (noise - sin(a) y) / cos(a) neither grows
nor becomes steep at an end (Salimans and Ho 2022, arXiv:2202.00512, appendix D). Every image has its own steps, so image i
depends on its key alone. The divergence is Skilling's and Hutchinson's estimate v J v, whose mean over random v is exact;
that of the linear part, which the authors' code estimates too, is known.
"""

from collections.abc import Callable
from typing import Any

import diffrax
import jax
import jax.numpy as jnp

from jgen import bits
from jgen.arrays import dot, expand_dims_like
from jgen.errors import UserError
from jgen.sde import SDE, prior_log_density
from jgen.types import Array, Score

MOST_STEPS = 10_000
LEAST = 1e-5
"""Where likelihoods begin: x_0 is taken to be x at this time."""


def solve(
    field: Callable[..., Any], y: Any, start: Any, end: Any, rtol: float, atol: float, together: bool, *fixed: Array
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


def _solve(field: Callable[[Any, Any], Any], y: Any, start: Any, end: Any, control: Any) -> Any:
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
    score: Callable[..., Array],
    x: Array,
    *condition: Array,
    start: float = 1.0,
    end: float | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    together: bool = False,
) -> Array:
    """x [B, ...] carried along the ODE from one time to another: by default from the prior to an image.

    score: a function of (x, t, *condition); condition: arrays [B, ...] such as labels.
    start=1e-5, end=1.0 gives the latent of an image.
    together: as of `solve`.
    """
    (first, scale), (last, final) = (_place(sde, t, x) for t in (start, sde.end if end is None else end))
    velocity = _velocity(sde, score)
    return final * solve(
        lambda angle, y, *condition: velocity(angle, y, *condition)[0], x / scale, first, last, rtol, atol, together, *condition
    )


def _place(sde: SDE, t: float, x: Array) -> tuple[Array, Array]:
    """(angle, scale) [] at a time: x = scale y."""
    if not 0 < t <= 1:
        raise UserError(f"time={t}: must be above 0, and at most 1")
    at = jnp.asarray(t, x.dtype)
    return jnp.arctan2(sde.std(at), sde.mean(at)), jnp.hypot(sde.std(at), sde.mean(at))


def _velocity(sde: SDE, score: Callable[..., Array]) -> Callable[..., tuple[Array, Array]]:
    """(dy / d angle, its part that is not linear in y) for a batch of y at one angle []."""

    def velocity(angle: Any, y: Array, *condition: Array) -> tuple[Array, Array]:
        t = jnp.clip(sde.time(jnp.broadcast_to(jnp.tan(angle).astype(y.dtype), y.shape[:1])), 0.0, 1.0)
        noise = -expand_dims_like(sde.std(t), y) * score(
            expand_dims_like(jnp.hypot(sde.mean(t), sde.std(t)), y) * y, t, *condition
        )
        return noise / jnp.cos(angle) - jnp.tan(angle) * y, noise / jnp.cos(angle)

    return velocity


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
    velocity = _velocity(sde, score)

    def field(angle: Any, y: tuple[Array, Array], v: Array) -> tuple[Array, Array]:
        (moved, _), pull = jax.vjp(lambda y: velocity(angle, y), y[0])
        return moved, dot(v, pull((jnp.zeros_like(v), v))[0])

    (first, scale), (last, final) = (_place(sde, t, x) for t in (start, 1.0))
    y, change = solve(field, (x / scale, jnp.zeros(len(x), x.dtype)), first, last, rtol, atol, together, probes)
    shrunk = x[0].size * jnp.log(final * jnp.cos(last) / (scale * jnp.cos(first)))  # the linear part, and the scales
    return prior_log_density(sde, final * y) + change + shrunk, final * y


def bits_per_dim(sde: SDE, score: Score, x: Array, probes: Array, **how: Any) -> tuple[Array, Array]:
    """(bits a dimension [B], latents) of 256-level images that were dequantised and mapped to [-1, 1]; how: as above.

    They are `jgen.bits`' with uniform dequantisation, for every image.
    """
    value, z = log_likelihood(sde, score, x, probes, **how)
    return bits.bits_per_dim(-value, x.shape[1:], "uniform", scale=2).bits, z
