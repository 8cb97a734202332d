"""Samplers with error control: steps as long as a tolerance allows.

DPM-Solver's (Lu et al. 2022, arXiv:2206.00927, appendix C), and Dormand and Prince's pair of orders 5 and 4 (1980, "A family
of embedded Runge-Kutta formulae"), which flow matching and score-based models call RK45. Each image has steps of its own, so
that it does not depend on the others of its batch; `together=True` is the authors' way of DPM-Solver, one step length for the
batch. A compiled while loop; its number of evaluations is not known beforehand.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.samplers.common import check_keys, noise
from jgen.samplers.dpm import Form
from jgen.samplers.linear import Parameterization
from jgen.sigmas import Curve
from jgen.types import Array, Denoise, Key

MOST = 10_000
"""Attempted steps after which the loop gives up."""


class _State(NamedTuple):
    x: Array
    before: Array
    """The lower-order result of the last accepted step: the scale of the relative tolerance."""
    lam: Array
    """[B]: lambda = -log sigma reached so far."""
    h: Array
    """[B]: length of the next attempt."""
    attempts: Array


class _Past(NamedTuple):
    """The memory of k-diffusion's control of steps."""

    inverse: Array
    """[2, B]: 1 / error of the last two accepted steps, the last one first; 0 before the first attempt."""
    accepted: Array
    """Accepted steps so far, of any image."""


class Control(NamedTuple):
    """k-diffusion's control of the length of steps, by the errors of the last three: weights of a PID controller, and the least
    factor of the length with which a step is accepted."""

    pcoeff: float = 0.0
    icoeff: float = 1.0
    dcoeff: float = 0.0
    accept_safety: float = 0.81

    def factor(self, inverse: Array, past: Array, order: float) -> Array:
        """The factor of the length [B], for 1 / error of the step and of the two before."""
        p, i, d = self.pcoeff / order, self.icoeff / order, self.dcoeff / order
        return 1 + jnp.arctan(inverse ** (p + i + d) * past[0] ** (-p - 2 * d) * past[1] ** d - 1)

    def judged(self, error: Array, past: Array, order: float) -> tuple[Array, Array, Array]:
        """(whether a step of this error [B] is good, the factor of the next length, what is remembered then [2, B])."""
        now = 1 / (error + 1e-8)
        past = jnp.where(past > 0, past, now[None])
        factor = self.factor(now, past, order)
        good = factor >= self.accept_safety
        return good, factor, jnp.where(good[None], jnp.stack([now, past[0]]), past)


CONTROL = Control()
LEAST = 1e-4
"""Share of its length to which a step that went astray is shortened at most."""
SHORTEST = 1e-6
"""Steps below it make no way, so the image is given up."""


def _check(rtol: float, atol: float) -> None:
    if not (rtol > 0 and atol > 0):
        raise UserError(f"rtol={rtol}, atol={atol}: must be above 0")


def _check_levels(sigma_min: float, sigma_max: float) -> None:
    if not 0 < sigma_min < sigma_max < np.inf:
        raise UserError(f"sigma_min={sigma_min}, sigma_max={sigma_max}: must be 0 < sigma_min < sigma_max")


def _alive(state: _State) -> Array:
    """[B]: whether an image may still arrive; what is not finite, and steps that only get shorter, do not."""
    total = sum(jnp.sum(jnp.abs(a), axis=tuple(range(1, a.ndim))) for a in (state.x, state.before))
    return jnp.isfinite(total) & (state.h > SHORTEST)


def _finite(squares: Array) -> Array:
    """Squares of errors, those that are no number among them as infinite: such a step is to be shorter."""
    return jnp.where(jnp.isfinite(squares), squares, jnp.inf)


def _pair(
    denoise: Denoise, x: Array, lam: Array, h: Array, order: int, parameterization: Parameterization, form: Form
) -> tuple[Array, Array]:
    """The steps of order - 1 and of `order` from lambda to lambda + h; r_1 = 1/2 for order 2, else 1/3 and r_2 = 2/3."""
    ratios = (0.5,) if order == 2 else (1 / 3, 2 / 3)
    s = -1.0 if parameterization == "data" else 1.0

    def evaluate(point: Array, lam: Array) -> Array:
        sigma = jnp.exp(-lam)
        clean = denoise(point, sigma)
        return clean if parameterization == "data" else (point - clean) / expand_dims_like(sigma, x)

    def step(length: Array, one: Array, two: Array | float = 0.0, three: Array | float = 0.0) -> Array:
        """x - phi_1 one - s phi_2 two - phi_3 three, in the form of `jgen.samplers.dpm.phis`."""
        phi_1 = jnp.expm1(s * length)
        phi_2 = phi_1 / length - s
        phi_3 = phi_2 / length - 0.5
        keep, factor = (jnp.exp(-length), 1.0) if parameterization == "data" else (1.0, jnp.exp(-(lam + length)))
        return (
            expand_dims_like(keep * jnp.ones_like(lam), x) * x
            - expand_dims_like(factor * phi_1, x) * one
            - expand_dims_like(s * factor * phi_2, x) * two
            - expand_dims_like(factor * phi_3, x) * three
        )

    def second(length: Array, d: Array) -> Array:
        """The second-order step, whose derivative term is half of phi_1 rather than phi_2 but for Taylor's form."""
        if form == "taylor":
            return step(length, m0, d)
        phi_1 = jnp.expm1(s * length)
        factor = 1.0 if parameterization == "data" else jnp.exp(-(lam + length))
        return step(length, m0) - 0.5 * expand_dims_like(factor * phi_1, x) * d

    m0 = evaluate(x, lam)
    m1 = evaluate(step(ratios[0] * h, m0), lam + ratios[0] * h)
    slope = (m1 - m0) / ratios[0]
    if order == 2:
        return step(h, m0), second(h, slope)
    r1, r2 = ratios[0], ratios[-1]
    m2 = evaluate(step(r2 * h, m0, r2 / r1 * (m1 - m0)), lam + r2 * h)
    further = (m2 - m0) / r2
    if form == "taylor":
        high = step(h, m0, (r2 * slope - r1 * further) / (r2 - r1), 2 * (further - slope) / (r2 - r1))
        return second(h, slope), high
    return second(h, slope), step(h, m0, further)


def _lower(lam: Array, to: Array, end: float, eta: float) -> tuple[Array, Array]:
    """(lambda that a step from lam towards `to` is solved to, deviation of the noise that leads back to `to`)."""
    before, after = jnp.exp(-lam), jnp.exp(-to)
    up = jnp.minimum(after, eta * after * jnp.sqrt(1 - jnp.square(after / before)))
    reached = jnp.minimum(end, -0.5 * jnp.log(jnp.square(after) - jnp.square(up)))
    return reached, jnp.sqrt(jnp.maximum(jnp.square(after) - jnp.exp(-2 * reached), 0.0))


def _solve(
    denoise: Denoise, x: Array, start: float, end: float, order: int, parameterization: Parameterization, rtol: float,
    atol: float, h: float, together: bool, scaled: bool, control: Control | None = None, eta: float = 0.0,
    s_noise: float = 1.0, keys: Key | None = None, form: Form = "midpoint",
) -> Array:  # fmt: skip
    """From lambda `start` to `end`. scaled: errors are those of alpha x; control: k-diffusion's, else DPM-Solver's."""
    if order not in (2, 3):
        raise UserError(f"order={order}: must be 2 or 3")
    if eta and keys is None:
        raise UserError(f"eta={eta}, keys=None: this sampler draws noise; give it one key an image")
    if eta:
        check_keys(keys, x)
    _check(rtol, atol)
    weakest = 1.5 if eta else order  # what k-diffusion takes the order of the error to be

    def alpha(lam: Array) -> Array:
        return expand_dims_like(1 / jnp.sqrt(1 + jnp.exp(-2 * lam)), x) if scaled else jnp.ones((1,) * x.ndim)

    def attempt(carry: tuple[_State, _Past]) -> tuple[_State, _Past]:
        state, past = carry
        active = (end - state.lam > 1e-5) & _alive(state)
        h = jnp.where(active, jnp.minimum(state.h, end - state.lam), 1.0)
        length, fresh = h, jnp.zeros_like(x)
        if eta:
            assert keys is not None
            reached, up = _lower(state.lam, state.lam + h, end, eta)
            length = jnp.where(active, reached - state.lam, 1.0)
            # The authors draw for the steps that are accepted; what a step is rejected for does not depend on the draw.
            draw = past.accepted if together else state.attempts
            fresh = s_noise * expand_dims_like(up, x) * noise(keys, x.shape[1:], draw).astype(x.dtype)
        low, high = _pair(denoise, state.x, state.lam, length, order, parameterization, form)
        a = alpha(state.lam + length)
        scale = jnp.maximum(atol, rtol * jnp.maximum(jnp.abs(a * low), jnp.abs(state.before)))
        squares = _finite(jnp.mean(jnp.square(a * (high - low) / scale), axis=tuple(range(1, x.ndim))))
        if together:
            squares = jnp.where(_alive(state), squares, 0.0)
            squares = jnp.full_like(squares, jnp.max(squares) if control is None else jnp.mean(squares))
        error = jnp.sqrt(squares)
        if control is None:
            good, longer, inverse = error <= 1, h * jnp.maximum(0.9 * error ** (-1 / order), LEAST), past.inverse
        else:
            good, factor, inverse = control.judged(error, past.inverse, weakest)
            longer, inverse = state.h * factor, jnp.where(active[None], inverse, past.inverse)
        good = active & good
        after = _State(
            jnp.where(expand_dims_like(good, x), high + fresh, state.x),
            jnp.where(expand_dims_like(good, x), a * low, state.before),
            jnp.where(good, state.lam + h, state.lam),
            jnp.where(active, longer, state.h),
            state.attempts + 1,
        )
        return after, _Past(inverse, past.accepted + jnp.any(good))

    def going_on(carry: tuple[_State, _Past]) -> Array:
        state, _ = carry
        return jnp.any((end - state.lam > 1e-5) & _alive(state)) & (state.attempts < MOST)

    ones, none = jnp.ones(len(x), x.dtype), jnp.zeros((), jnp.int32)
    first = _State(x, alpha(start * ones) * x, start * ones, h * ones, none)
    last, _ = lax.while_loop(going_on, attempt, (first, _Past(jnp.zeros((2, len(x)), x.dtype), none)))
    return jnp.where(expand_dims_like(end - last.lam <= 1e-5, x), last.x, jnp.nan)


def dpm_adaptive(
    denoise: Denoise, x: Array, sigma_min: float, sigma_max: float, *, order: int = 3,
    parameterization: Parameterization = "noise", rtol: float = 0.05, atol: float = 0.0078, h_init: float = 0.05,
    together: bool = False, eta: float = 0.0, s_noise: float = 1.0, keys: Key | None = None, control: Control = CONTROL,
) -> Any:  # fmt: skip
    """k-diffusion's: x = sigma_max * noise to sigma_min, errors in the coordinates (x, sigma), lengths that change gently.

    eta: each step goes to a lower level and up again by fresh noise, times s_noise, as of `dpm_fast`; it needs keys [B], and
    the steps are those of an order of 1.5 then. Raises UserError for eta without keys, other orders than 2 and 3, and levels
    that do not fall or are not above 0.
    """
    _check_levels(sigma_min, sigma_max)
    start, end = (-float(np.log(s)) for s in (sigma_max, sigma_min))
    return _solve(
        denoise, x, start, end, order, parameterization, rtol, atol, h_init, together, scaled=False, control=control,
        eta=eta, s_noise=s_noise, keys=keys,
    )  # fmt: skip


def dpm_solver_adaptive(
    denoise: Denoise, x: Array, curve: Curve, *, order: int = 3,
    parameterization: Parameterization = "data", rtol: float = 0.05, atol: float = 0.0078, h_init: float = 0.05,
    together: bool = False, form: Form = "midpoint",
) -> Any:  # fmt: skip
    """The authors': x in the coordinates x / alpha from time 1 of a curve to its end, errors those of alpha x.

    form: that of the derivative terms, as of `jgen.samplers.dpm.dpm_solver`.
    """
    start, end = float(curve.log_snr(1.0)), float(curve.log_snr(curve.end))
    return _solve(denoise, x, start, end, order, parameterization, rtol, atol, h_init, together, scaled=True, form=form)


DORMAND_PRINCE = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
"""Weights of the slopes before, stage by stage; the last row is the step of order 5."""
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)
"""Weights of the step of order 4."""


def rk45(denoise: Denoise, x: Array, sigma_min: float, sigma_max: float, *, rtol: float = 1e-3, atol: float = 1e-3) -> Array:
    """x = sigma_max * noise to sigma_min along the ODE; six evaluations a step, and one before.

    Solved for y = x cos(a) against the angle a = arctan(sigma), in which dy / da = cos(a) noise - sin(a) D neither grows nor
    becomes steep at an end (Salimans and Ho 2022, arXiv:2202.00512, appendix D); errors are those of y. As
    `jgen.samplers.probability_flow.flow` for a denoiser, whose batch stays one: it may close over arrays of all images. Raises
    UserError for tolerances that are not above 0, and levels that do not fall.
    """
    _check(rtol, atol)
    _check_levels(sigma_min, sigma_max)
    start, end = (float(np.arctan(s)) for s in (sigma_max, sigma_min))
    size = len(FOURTH)
    table = jnp.asarray([[*row, *[0.0] * (size - len(row))] for row in DORMAND_PRINCE], x.dtype)

    def slope(angle: Array, y: Array) -> Array:
        cos, sin = expand_dims_like(jnp.cos(angle), y), expand_dims_like(jnp.sin(angle), y)
        clean = denoise(y / cos, jnp.tan(angle)).astype(y.dtype)
        return cos * (y - cos * clean) / sin - sin * clean

    def attempt(state: _State) -> _State:
        """One step. In the state, lam is the angle, h its decrease, and before the slope of the step before."""
        active = (state.lam > end) & _alive(state)
        h = jnp.where(active, jnp.minimum(state.h, state.lam - end), 0.0)

        def stage(slopes: Array, row: tuple[Array, Array]) -> tuple[Array, Array]:
            i, weights = row
            y = state.x - expand_dims_like(h, x) * jnp.tensordot(weights, slopes, 1)
            return slopes.at[i].set(slope(state.lam - weights.sum() * h, y)), y

        slopes = jnp.zeros((size, *x.shape), x.dtype).at[0].set(state.before)
        slopes, points = lax.scan(stage, slopes, (jnp.arange(1, size), table))
        y, off = points[-1], expand_dims_like(h, x) * jnp.tensordot(table[-1] - jnp.asarray(FOURTH, x.dtype), slopes, 1)
        scale = atol + rtol * jnp.maximum(jnp.abs(state.x), jnp.abs(y))
        error = jnp.sqrt(_finite(jnp.mean(jnp.square(off / scale), axis=tuple(range(1, x.ndim)))))
        good = active & (error <= 1)
        # A step to the end ends there, whatever the rounding of the difference.
        reached = jnp.where(state.lam - h <= end * (1 + 1e-6), end, state.lam - h)
        return _State(
            jnp.where(expand_dims_like(good, x), y, state.x),
            jnp.where(expand_dims_like(good, x), slopes[-1], state.before),
            jnp.where(good, reached, state.lam),
            jnp.where(active, h * jnp.clip(0.9 * jnp.maximum(error, 1e-10) ** -0.2, 0.2, 10.0), state.h),
            state.attempts + 1,
        )

    def going_on(state: _State) -> Array:
        return jnp.any((state.lam > end) & _alive(state)) & (state.attempts < MOST)

    ones, y = jnp.ones(len(x), x.dtype), x * np.cos(start).astype(x.dtype)
    first = _State(y, slope(start * ones, y), start * ones, 0.05 * ones, jnp.zeros((), jnp.int32))
    last = lax.while_loop(going_on, attempt, first)
    return jnp.where(expand_dims_like(last.lam <= end, x), last.x / np.cos(end).astype(x.dtype), jnp.nan)
