"""DPM-Solver and DPM-Solver++ (Lu et al. 2022, arXiv:2206.00927, arXiv:2211.01095), and their SDE variants.

Exponential integrators in lambda = -log sigma, in the coordinates x / alpha, where alpha drops out of every formula.
DPM-Solver interpolates the noise, DPM-Solver++ the clean image ("data"). h is a step's length in lambda.
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np

from jgen.errors import UserError, check_choice
from jgen.samplers.common import Trace, check_not_negative
from jgen.samplers.euler_heun import ancestral_levels
from jgen.samplers.linear import Parameterization, Row, Step, levels, run
from jgen.types import Array, Denoise, Key

Form = Literal["midpoint", "taylor"]
"""The two forms of a second-order term; "midpoint" is the authors' default, which they call dpmsolver."""


def phis(h: float, parameterization: Parameterization) -> tuple[float, float, float]:
    """phi_1, phi_2, phi_3 with the signs under which x + phi_1 D + phi_2 D' + phi_3 D'' is a step (times sigma for noise)."""
    s = -1.0 if parameterization == "data" else 1.0
    one = float(np.expm1(s * h))
    two = one / h - s
    three = two / h - 0.5
    return -one, -s * two, -three


def _scaled(a: float, b: float, parameterization: Parameterization) -> tuple[float, float]:
    """(factor of x, factor of the phis) of a step from level a to level b."""
    return (b / a, 1.0) if parameterization == "data" else (1.0, b)


def _differences(weights: Sequence[float], columns: Sequence[Sequence[float]]) -> list[float]:
    """sum of weights_k * columns_k, each a combination of evaluations."""
    size = max(len(c) for c in columns)
    total = np.zeros(size)
    for weight, column in zip(weights, columns):
        total[: len(column)] += weight * np.asarray(column)
    return [float(v) for v in total]


def _multistep(lam: np.ndarray, i: int, order: int, weights: tuple[float, float, float], form: Form) -> list[float]:
    """The combination of the evaluations at i, i - 1, i - 2 that makes step i, of the given order.

    As in the authors' code, d2 is half of the second derivative where the weight `three` is for the whole of it.
    """
    one, two, three = weights
    if order == 1:
        return [one]
    h = lam[i + 1] - lam[i]
    r0 = (lam[i] - lam[i - 1]) / h
    d10 = [1 / r0, -1 / r0]
    if order == 2:
        return _differences([1, one / 2 if form == "midpoint" else two], [[one], d10])
    r1 = (lam[i - 1] - lam[i - 2]) / h
    d11 = [0, 1 / r1, -1 / r1]
    d1 = _differences([1 + r0 / (r0 + r1), -r0 / (r0 + r1)], [d10, d11])
    d2 = _differences([1 / (r0 + r1), -1 / (r0 + r1)], [d10, d11])
    return _differences([1, two, three], [[one], d1, d2])


def multistep_rows(
    sigmas: Any, order: int, parameterization: Parameterization, form: Form, lower_order_final: bool
) -> list[Row]:
    """One evaluation a step; derivatives of D from the steps before. A step to sigma 0 is of first order."""
    s = levels(sigmas)
    steps, rows = len(s) - 1, []
    with np.errstate(divide="ignore"):
        lam = -np.log(s)
    for i in range(steps):
        now = min(order, i + 1, steps - i if lower_order_final and steps < 10 else order)
        if s[i + 1] == 0:
            rows.append(Row(s[i], step=Step(0.0, [1.0]) if parameterization == "data" else Step(1.0, [-s[i]])))
            continue
        h = lam[i + 1] - lam[i]
        keep, factor = _scaled(s[i], s[i + 1], parameterization)
        combination = _multistep(lam, i, now, phis(h, parameterization), form)
        rows.append(Row(s[i], step=Step(keep, [factor * c for c in combination])))
    return rows


def singlestep_rows(sigmas: Any, orders: Sequence[int], parameterization: Parameterization, form: Form) -> list[Row]:
    """A step of order k takes k of the intervals between levels, and k evaluations: at its first level and those within."""
    s = levels(sigmas)
    if sum(orders) != len(s) - 1 or not set(orders) <= {1, 2, 3}:
        raise UserError(f"orders={list(orders)}: must be 1 to 3 and add up to the {len(s) - 1} intervals of sigmas")
    rows, at = [], 0
    for order in orders:
        rows += _one_singlestep(s[at : at + order + 1], parameterization, form)
        at += order
    return rows


def _one_singlestep(s: np.ndarray, parameterization: Parameterization, form: Form) -> list[Row]:
    """The rows of one step over the levels s [order + 1]."""
    order, a, b = len(s) - 1, float(s[0]), float(s[-1])
    if b == 0:
        if order > 1:
            raise UserError("sigmas: the step to level 0 must be of order 1")
        return [Row(a, step=Step(0.0, [1.0]) if parameterization == "data" else Step(1.0, [-a]))]
    lam = -np.log(s)
    h = lam[-1] - lam[0]
    one, two, three = phis(h, parameterization)
    keep, factor = _scaled(a, b, parameterization)
    if order == 1:
        return [Row(a, step=Step(keep, [factor * one]))]
    r1 = (lam[1] - lam[0]) / h
    keep1, factor1 = _scaled(a, s[1], parameterization)
    rows = [Row(a), Row(float(s[1]), keep1, [factor1 * phis(r1 * h, parameterization)[0]])]
    if order == 2:
        d1 = [1 / r1, -1 / r1]
        combination = _differences([1, one / 2 if form == "midpoint" else two], [[0, one], d1])
    else:
        r2 = (lam[2] - lam[0]) / h
        keep2, factor2 = _scaled(a, s[2], parameterization)
        p1, p2, _ = phis(r2 * h, parameterization)
        inner = _differences([1, r2 / r1 * p2], [[0, p1], [1, -1]])
        rows.append(Row(float(s[2]), keep2, [factor2 * c for c in inner]))
        d10, d11 = [0, 1 / r1, -1 / r1], [1 / r2, 0, -1 / r2]
        if form == "midpoint":
            combination = _differences([1, two], [[0, 0, one], d11])
        else:
            d1 = _differences([r2 / (r2 - r1), -r1 / (r2 - r1)], [d10, d11])
            d2 = _differences([2 / (r2 - r1), -2 / (r2 - r1)], [d11, d10])
            combination = _differences([1, two, three], [[0, 0, one], d1, d2])
    rows[-1] = rows[-1]._replace(step=Step(keep, [factor * c for c in combination]))
    return rows


def orders_of(evaluations: int, order: int) -> list[int]:
    """How the authors split a number of evaluations into steps of at most `order`.

    >>> orders_of(9, 3), orders_of(10, 3), orders_of(8, 3), orders_of(5, 2)
    ([3, 3, 2, 1], [3, 3, 3, 1], [3, 3, 2], [2, 2, 1])
    """
    if order == 3 and evaluations and evaluations % 3 == 0:
        return [3] * (evaluations // 3 - 1) + [2, 1]
    return [order] * (evaluations // order) + ([evaluations % order] if evaluations % order else [])


def even_steps(orders: Sequence[int], sigma_max: float, sigma_min: float) -> np.ndarray:
    """Levels [sum(orders) + 1] for steps of equal length in lambda, whatever their orders, each divided evenly."""
    ends = np.linspace(-np.log(sigma_max), -np.log(sigma_min), len(orders) + 1)
    inner = [np.linspace(a, b, k + 1)[:-1] for a, b, k in zip(ends, ends[1:], orders)]
    return np.exp(-np.append(np.concatenate(inner), ends[-1]))


def dpm_solver(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key | None = None,
    *,
    order: int = 2,
    method: Literal["multistep", "singlestep"] = "multistep",
    parameterization: Parameterization = "data",
    form: Form = "midpoint",
    orders: Sequence[int] | None = None,
    lower_order_final: bool = True,
    trace: Trace | None = None,
) -> Any:
    """Images [B, H, W, C] from x = sigmas[0] * noise; as many evaluations as sigmas has intervals.

    parameterization: "data" is DPM-Solver++, "noise" DPM-Solver. multistep: one evaluation a step, orders 1 to 3, lower at
    the start and, below 10 steps with lower_order_final, at the end; order 3 is the authors' code, which gives the second
    derivative half of its weight in a Taylor series, and so converges with order 2 (`unipc` and singlestep do with 3).
    singlestep: a step of order k takes k intervals; `orders` default to `orders_of`. A last level of 0 is reached by a step
    of first order. Deterministic: keys are not used. Raises UserError for other orders.
    """
    if order not in (1, 2, 3):
        raise UserError(f"order={order}: must be 1, 2 or 3")
    check_choice(get_args(Form), form=form)
    if method == "multistep":
        rows = multistep_rows(sigmas, order, parameterization, form, lower_order_final)
    else:
        zero = int(levels(sigmas)[-1] == 0)
        orders = orders or [*orders_of(len(sigmas) - 1 - zero, order), *[1] * zero]
        rows = singlestep_rows(sigmas, orders, parameterization, form)
    return run(denoise, x, rows, keys, parameterization=parameterization, trace=trace)


dpm_multistep = functools.partial(dpm_solver, method="multistep")
dpm_singlestep = functools.partial(dpm_solver, method="singlestep")


def fast_orders(evaluations: int) -> list[int]:
    """k-diffusion's split of a number of evaluations: 3, ..., 3 and then 2, 1, or what is left.

    >>> fast_orders(9), fast_orders(10), fast_orders(2)
    ([3, 3, 2, 1], [3, 3, 3, 1], [2])
    """
    whole, rest = divmod(evaluations, 3)
    return [3] * whole + [rest] if rest else [3] * (whole - 1) + [2, 1]


def dpm_fast(
    denoise: Denoise,
    x: Array,
    sigma_min: float,
    sigma_max: float,
    evaluations: int,
    keys: Key | None = None,
    *,
    eta: float = 0.0,
    s_noise: float = 1.0,
    trace: Trace | None = None,
) -> Any:
    """k-diffusion's DPM-Solver-fast: x = sigma_max * noise to sigma_min > 0 in steps of even length in log sigma, of order 3.

    eta: each step goes to a lower level and up again by fresh noise, times s_noise, which needs keys [B]; not below sigma_min.
    Raises UserError for levels that do not fall or no evaluation.
    """
    if evaluations < 1 or not 0 < sigma_min < sigma_max:
        levels_given = f"sigma_min={sigma_min:.4g}, sigma_max={sigma_max:.4g}"
        raise UserError(f"evaluations={evaluations}, {levels_given}: needs at least 1, and levels that fall")
    orders, rows = fast_orders(evaluations), []
    ends = np.exp(np.linspace(np.log(sigma_max), np.log(sigma_min), len(orders) + 1))
    for i, order in enumerate(orders):
        down, up = float(ends[i + 1]), 0.0
        if eta:
            down = max(ancestral_levels(ends[i], ends[i + 1], eta)[0], sigma_min)
            up = float(np.sqrt(max(ends[i + 1] ** 2 - down**2, 0.0)))
        step = _one_singlestep(np.exp(np.linspace(np.log(ends[i]), np.log(down), order + 1)), "noise", "midpoint")
        last = step[-1].step
        assert last is not None
        step[-1] = step[-1]._replace(step=last._replace(z=s_noise * up), draws=(i, i))
        rows += step
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def dpmpp_2s_ancestral(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key, *, eta: float = 1.0, s_noise: float = 1.0, trace: Trace | None = None
) -> Any:
    """DPM-Solver++(2S) down to a lower level, then fresh noise, times s_noise, up to the next one. Two evaluations a step."""
    s, rows = levels(sigmas), []
    for i in range(len(s) - 1):
        down, up = ancestral_levels(s[i], s[i + 1], eta)
        middle = np.sqrt(s[i] * down)
        step = _one_singlestep(np.array([s[i], middle, down] if down else [s[i], 0.0]), "data", "midpoint")
        last = step[-1].step
        assert last is not None
        step[-1] = step[-1]._replace(step=last._replace(z=s_noise * up), draws=(i, i))
        rows += step
    return run(denoise, x, rows, keys, trace=trace)


def dpmpp_sde(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key,
    *,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 0.5,
    trace: Trace | None = None,
) -> Any:
    """DPM-Solver++ of the SDE, singlestep second order: noise, times s_noise, at the middle of a step and at its end."""
    s, rows = levels(sigmas), []
    for i in range(len(s) - 1):
        a, b = float(s[i]), float(s[i + 1])
        if b == 0:
            rows.append(Row(a, step=Step(0.0, [1.0])))
            continue
        middle = float(np.exp((1 - r) * np.log(a) + r * np.log(b)))
        (low, up), (end, rise), share = ancestral_levels(a, middle, eta), ancestral_levels(a, b, eta), 1 / (2 * r)
        rows.append(Row(a))
        step = Step(end / a, [(1 - end / a) * share, (1 - end / a) * (1 - share)], s_noise * rise)
        rows.append(Row(middle, low / a, [1 - low / a], s_noise * up, step=step, draws=(2 * i, 2 * i + 1)))
    return run(denoise, x, rows, keys, trace=trace)


def dpmpp_multistep_sde(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key,
    *,
    order: int = 2,
    eta: float = 1.0,
    s_noise: float = 1.0,
    form: Form = "midpoint",
    trace: Trace | None = None,
) -> Any:
    """DPM-Solver++ of the SDE, multistep ("2M SDE", "3M SDE"): one evaluation a step; eta 0 is the ODE, 1 the SDE.

    s_noise: a factor of the fresh noise. form: of order 2; "taylor" is what k-diffusion calls heun.
    """
    if order not in (1, 2, 3):
        raise UserError(f"order={order}: must be 1, 2 or 3")
    check_not_negative(eta=eta, s_noise=s_noise)
    check_choice(get_args(Form), form=form)
    s, rows = levels(sigmas), []
    with np.errstate(divide="ignore"):
        lam = -np.log(s)
    for i in range(len(s) - 1):
        if s[i + 1] == 0:
            rows.append(Row(s[i], step=Step(0.0, [1.0])))
            continue
        h = lam[i + 1] - lam[i]
        now = min(order, i + 1)
        # Below its own order a third-order run takes the Taylor form.
        combination = _multistep(lam, i, now, phis(h * (1 + eta), "data"), form if order == 2 else "taylor")
        deviation = s_noise * s[i + 1] * np.sqrt(-np.expm1(-2 * eta * h))
        rows.append(Row(s[i], step=Step(np.exp(-h * (1 + eta)), combination, deviation), draws=(i, i)))
    return run(denoise, x, rows, keys, trace=trace)
