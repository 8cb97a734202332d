"""The generalised sampler of EDM's study (Karras et al. 2022, arXiv:2206.00364, algorithm 3 of its appendix, table 1).

Earlier samplers are choices of three things: the levels visited, the schedule sigma(t) and the scaling s(t) of
dx/dt = (sigma'/sigma + s'/s) x - (sigma' s / sigma) D(x / s, sigma).
"""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from jgen.config.samplers import Churn
from jgen.samplers.common import Trace
from jgen.samplers.euler_heun import _churned
from jgen.samplers.linear import Row, Step, levels, run
from jgen.types import Array, Denoise, Key


@dataclasses.dataclass(frozen=True)
class Time:
    """sigma(t), its derivative and its inverse."""

    sigma: Callable[[float], float]
    slope: Callable[[float], float]
    inverse: Callable[[float], float]


def vp_time(beta_d: float = 19.9, beta_min: float = 0.1) -> Time:
    """sigma(t) of the variance-preserving process."""

    def sigma(t: float) -> float:
        return float(np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t)))

    def slope(t: float) -> float:
        return (beta_min + beta_d * t) * (sigma(t) + 1 / sigma(t)) / 2

    def inverse(level: float) -> float:
        return float((np.sqrt(beta_min**2 + 2 * beta_d * np.log1p(level**2)) - beta_min) / beta_d)

    return Time(sigma, slope, inverse)


VE_TIME = Time(lambda t: float(np.sqrt(t)), lambda t: 0.5 / float(np.sqrt(t)), lambda level: level**2)
LINEAR_TIME = Time(lambda t: t, lambda t: 1.0, lambda level: level)


def vp_betas(sigma_min: float, sigma_max: float, epsilon: float = 1e-3) -> tuple[float, float]:
    """(beta_d, beta_min) of the VP process that has these levels at times epsilon and 1."""
    low, high = np.log1p(sigma_min**2), np.log1p(sigma_max**2)
    beta_d = 2 * (low / epsilon - high) / (epsilon - 1)
    return float(beta_d), float(high - beta_d / 2)


def ve_levels(steps: int, sigma_min: float = 0.02, sigma_max: float = 100.0) -> np.ndarray:
    """[steps + 1], 0 last: sigma^2 falls geometrically, as in NCSN."""
    ramp = np.arange(steps) / (steps - 1)
    return np.append(sigma_max * (sigma_min / sigma_max) ** ramp, 0.0)


def indexed_levels(table: np.ndarray, steps: int, sigma_min: float = 0.002, sigma_max: float = 81.0) -> np.ndarray:
    """[steps + 1], 0 last: evenly spaced indices of a table of falling levels, those within the range."""
    table = table[(table >= sigma_min) & (table <= sigma_max)]
    return np.append(table[np.round((len(table) - 1) / (steps - 1) * np.arange(steps)).astype(int)], 0.0)


def ablation(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key | None = None,
    *,
    time: Time = LINEAR_TIME,
    scaling: Literal["none", "vp"] = "none",
    order: Literal[1, 2] = 2,
    alpha: float = 1.0,
    churn: Churn | None = None,
    trace: Trace | None = None,
) -> Any:
    """Images [B, H, W, C] from x = sigmas[0] * noise, whose last level is 0.

    time: sigma(t). scaling: s(t), 1 or 1 / sqrt(1 + sigma^2). order 1 is Euler; 2 has its second evaluation at
    t + alpha h (1 Heun, 1/2 midpoint, 2/3 Ralston). The state is kept as x / s.
    """
    s_of = (lambda level: 1.0) if scaling == "none" else (lambda level: float(1 / np.sqrt(1 + level**2)))

    def slopes(t: float) -> tuple[float, float]:
        """(a, b) of dx/dt = a x + b D."""
        level, rise = time.sigma(t), time.slope(t)
        s = s_of(level)
        bend = 0.0 if scaling == "none" else -level * rise * s**2  # s' / s
        return rise / level + bend, -rise * s / level

    values, rows = levels(sigmas), []
    for i, (sigma, to) in enumerate(itertools.pairwise(values)):
        hat, deviation = _churned(float(sigma), len(values) - 1, churn)
        t, t_next = time.inverse(hat), time.inverse(float(to)) if to else 0.0
        h, s, s_next = t_next - t, s_of(hat), s_of(float(to))
        a, b = slopes(t)
        first = Row(hat, churn=deviation, draws=(i, i))
        if order == 1 or to == 0:
            rows.append(first._replace(step=Step((1 + h * a) * s / s_next, [h * b / s_next])))
            continue
        between = t + alpha * h
        level = time.sigma(between)
        x_there, d_there = (1 + alpha * h * a) * s, alpha * h * b  # x' = x_there * state + d_there * D
        a2, b2 = slopes(between)
        new = 1 / (2 * alpha)
        to_x = s + h * ((1 - new) * a * s + new * a2 * x_there)
        to_d = [h * new * b2, h * ((1 - new) * b + new * a2 * d_there)]
        rows += [
            first,
            Row(level, x_there / s_of(level), [d_there / s_of(level)], step=Step(to_x / s_next, [c / s_next for c in to_d])),
        ]
    return run(denoise, x, rows, keys, trace=trace)
