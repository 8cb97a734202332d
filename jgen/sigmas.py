"""Noise levels of continuous-time diffusion: curves sigma(t) and grids of levels for samplers; float64 numpy on the host.

Levels are those of x = x_0 + sigma * noise, so sigma = exp(-lambda) with lambda = log(alpha / sigma_t) of a
variance-preserving chain. Grids fall from the noisiest level. Sources: Karras et al. 2022 (EDM, arXiv:2206.00364), Song et
al. 2021 (arXiv:2011.13456), Lu et al. 2022 (DPM-Solver, arXiv:2206.00927), and k-diffusion.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from jgen.errors import UserError
from jgen.schedules import Schedule

Numbers = Any
LOWEST = -5.1
"""Knots of a discrete chain with a smaller lambda are left out of its curve: there log alpha is too steep to interpolate."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """A variance-preserving process in continuous time, t from `end` (almost clean) to 1."""

    log_alpha: Callable[[Numbers], Numbers]
    """t -> log of the factor of x_0."""
    time: Callable[[Numbers], Numbers]
    """lambda -> t."""
    end: float
    knots: int = 1000
    """Length of the discrete chain: the network's time at t is 1000 (t - 1 / knots), which may be fractional."""

    def alpha(self, t: Numbers) -> Numbers:
        return np.exp(self.log_alpha(t))

    def log_snr(self, t: Numbers) -> Numbers:
        """lambda: half the logarithm of the signal-to-noise ratio."""
        log_alpha = self.log_alpha(t)
        return log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha))

    def sigma(self, t: Numbers) -> Numbers:
        """The level in the coordinates x / alpha."""
        return np.exp(-self.log_snr(t))

    def network_time(self, t: Numbers) -> Numbers:
        """The time of a network trained on the discrete chain."""
        return 1000 * (t - 1 / self.knots)

    def times(self, steps: int, spacing: Literal["time", "quadratic", "log_snr"] = "time") -> np.ndarray:
        """[steps + 1] from 1 down to `end`: uniform in t, in sqrt(t), or in lambda."""
        _check(steps)
        if spacing == "log_snr":
            return np.asarray(self.time(np.linspace(self.log_snr(1.0), self.log_snr(self.end), steps + 1)))
        root = 2 if spacing == "quadratic" else 1
        return np.linspace(1.0, self.end ** (1 / root), steps + 1) ** root


def vp_linear(beta_0: float = 0.1, beta_1: float = 20.0, end: float = 1e-3) -> Curve:
    """beta(t) linear from beta_0 to beta_1: the VP process of Song et al. 2021."""
    slope = beta_1 - beta_0

    def time(log_snr: Numbers) -> Numbers:
        return (np.sqrt(beta_0**2 + 2 * slope * np.logaddexp(-2 * log_snr, 0)) - beta_0) / slope

    return Curve(lambda t: -slope * t**2 / 4 - beta_0 * t / 2, time, end)


def discrete(schedule: Schedule, end: float = 1e-3) -> Curve:
    """A discrete chain made continuous: step n of N is t = (n + 1) / N, log alpha piecewise linear between (DPM-Solver)."""
    log_alpha = 0.5 * np.log(schedule.alpha_bar)
    keep = log_alpha - 0.5 * np.log(-np.expm1(2 * log_alpha)) >= LOWEST
    log_alpha = log_alpha[keep]
    knots = (1 + np.arange(len(log_alpha))) / len(log_alpha)

    def time(log_snr: Numbers) -> Numbers:
        return _piecewise(-0.5 * np.logaddexp(0, -2 * np.asarray(log_snr)), log_alpha[::-1], knots[::-1])

    return Curve(lambda t: _piecewise(t, knots, log_alpha), time, end, len(knots))


def _piecewise(x: Numbers, knots: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Linear interpolation between increasing knots; the first and last pieces go on beyond them."""
    x = np.asarray(x, np.float64)
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    return values[i] + (x - knots[i]) * (values[i + 1] - values[i]) / (knots[i + 1] - knots[i])


def karras(steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """[steps + 1], 0 last: evenly spaced in sigma^(1 / rho). EDM eq. 5; rho 1 is uniform, 2 quadratic.

    >>> karras(3, 1.0, 9.0, 1.0).tolist()
    [9.0, 5.0, 1.0, 0.0]
    """
    _check(steps, sigma_min, sigma_max)
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps) ** rho
    return np.append(ramp, 0.0)


def exponential(steps: int, sigma_min: float, sigma_max: float) -> np.ndarray:
    """[steps + 1], 0 last: evenly spaced in log sigma, that is in log-SNR."""
    return polyexponential(steps, sigma_min, sigma_max, 1.0)


def polyexponential(steps: int, sigma_min: float, sigma_max: float, rho: float) -> np.ndarray:
    """[steps + 1], 0 last: log sigma falls as a power rho of an even ramp (k-diffusion)."""
    _check(steps, sigma_min, sigma_max)
    ramp = np.linspace(1, 0, steps) ** rho
    return np.append(np.exp(ramp * np.log(sigma_max / sigma_min)) * sigma_min, 0.0)


def vp(steps: int, beta_d: float = 19.9, beta_min: float = 0.1, epsilon: float = 1e-3) -> np.ndarray:
    """[steps + 1], 0 last: evenly spaced in the time of the VP process, from 1 to epsilon."""
    _check(steps)
    t = np.linspace(1, epsilon, steps)
    return np.append(np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t)), 0.0)


def of_schedule(schedule: Schedule, steps: int, sigma_max: float = np.inf) -> np.ndarray:
    """[steps + 1], 0 last: evenly spaced in the (fractional) time of a discrete chain, from sigma_max or its own greatest."""
    _check(steps)
    last = time_at(schedule, min(sigma_max, schedule.sigma[-1]))
    return np.append(sigma_at(schedule, np.linspace(last, 0, steps)), 0.0)


def sigma_at(schedule: Schedule, t: Numbers) -> np.ndarray:
    """The level at fractional times of a chain; log sigma is linear between its steps."""
    return np.exp(np.interp(t, np.arange(len(schedule)), np.log(schedule.sigma)))


def time_at(schedule: Schedule, sigma: Numbers) -> np.ndarray:
    """The inverse of `sigma_at`, clamped to the chain."""
    return np.interp(np.log(sigma), np.log(schedule.sigma), np.arange(len(schedule)))


def _check(steps: int, sigma_min: float = 1.0, sigma_max: float = 2.0) -> None:
    if steps < 1:
        raise UserError(f"steps={steps}: a sampler needs at least 1")
    if not 0 < sigma_min < sigma_max:
        raise UserError(f"sigma_min={sigma_min}, sigma_max={sigma_max}: must be 0 < sigma_min < sigma_max")
