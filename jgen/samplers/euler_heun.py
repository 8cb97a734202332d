"""Euler, Heun and their kin: the samplers of EDM (Karras et al. 2022, arXiv:2206.00364) and k-diffusion.

All take the level grid of `jgen.sigmas`, x = sigmas[0] * noise, and give images. d_i = (x_i - D(x_i)) / sigma_i.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.polynomial import Polynomial

from jgen.config.samplers import Churn
from jgen.errors import UserError
from jgen.samplers.common import Trace, check_not_negative
from jgen.samplers.linear import Row, Step, levels, run
from jgen.types import Array, Denoise, Key


def _pairs(sigmas: Any) -> Iterator[tuple[int, float, float]]:
    values = levels(sigmas)
    for i in range(len(values) - 1):
        yield i, float(values[i]), float(values[i + 1])


def _churned(sigma: float, steps: int, churn: Churn | None) -> tuple[float, float]:
    """(the raised level, the deviation of the noise that raises it)."""
    if churn is not None and churn.amount < 0:
        raise UserError(f"churn={churn.amount}: must be at least 0")
    if churn is None or not churn.s_min <= sigma <= churn.s_max:
        return sigma, 0.0
    hat = sigma * (1 + min(churn.amount / steps, np.sqrt(2) - 1))
    return hat, churn.s_noise * np.sqrt(hat**2 - sigma**2)


def ancestral_levels(sigma: float, to: float, eta: float) -> tuple[float, float]:
    """(level to step down to, deviation of the noise that then takes it up to `to`). Raises UserError for an eta below 0."""
    check_not_negative(eta=eta)
    up = min(to, eta * np.sqrt(to**2 * (sigma**2 - to**2) / sigma**2))
    return float(np.sqrt(to**2 - up**2)), float(up)


def euler(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, churn: Churn | None = None, trace: Trace | None = None
) -> Any:
    """First order: x <- x + (sigma_{i+1} - sigma_i) d_i. One evaluation a step; DDIM in these coordinates."""
    rows = []
    for i, sigma, to in _pairs(sigmas):
        hat, deviation = _churned(sigma, len(sigmas) - 1, churn)
        rows.append(Row(hat, churn=deviation, step=Step(1.0, [to - hat]), draws=(i, i)))
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def heun(
    denoise: Denoise,
    x: Array,
    sigmas: Any,
    keys: Key | None = None,
    *,
    churn: Churn | None = None,
    alpha: float = 1.0,
    trace: Trace | None = None,
) -> Any:
    """Second order, EDM's algorithms 1 and 2: an Euler step to level hat + alpha h, then the average slope of both ends.

    Two evaluations a step, one for the last (to sigma 0). alpha: 1 Heun, 1/2 midpoint, 2/3 Ralston.
    """
    rows = []
    for i, sigma, to in _pairs(sigmas):
        hat, deviation = _churned(sigma, len(sigmas) - 1, churn)
        h = to - hat
        first = Row(hat, churn=deviation, draws=(i, i))
        if to == 0:
            rows.append(first._replace(step=Step(1.0, [h])))
        else:
            new = 1 / (2 * alpha)
            rows += [first, Row(hat + alpha * h, h=[alpha * h], step=Step(1.0, [new * h, (1 - new) * h]))]
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def dpm_2(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, churn: Churn | None = None, trace: Trace | None = None
) -> Any:
    """Second order: the slope at the geometric mean of a step's levels. Two evaluations a step, one for the last."""
    rows = []
    for i, sigma, to in _pairs(sigmas):
        hat, deviation = _churned(sigma, len(sigmas) - 1, churn)
        rows += _midpoint(Row(hat, churn=deviation, draws=(i, i)), to, 0.0)
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def _midpoint(first: Row, to: float, up: float) -> list[Row]:
    h, draws = to - first.sigma, first.draws
    if to == 0:
        return [first._replace(step=Step(1.0, [h], up))]
    middle = float(np.sqrt(first.sigma * to))
    return [first, Row(middle, h=[middle - first.sigma], step=Step(1.0, [h], up), draws=draws)]


def euler_ancestral(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key, *, eta: float = 1.0, s_noise: float = 1.0, trace: Trace | None = None
) -> Any:
    """Euler down to a lower level, then fresh noise, times s_noise, up to the next one; eta 0 is `euler`."""
    rows = []
    for i, sigma, to in _pairs(sigmas):
        down, up = ancestral_levels(sigma, to, eta)
        rows.append(Row(sigma, step=Step(1.0, [down - sigma], s_noise * up), draws=(i, i)))
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def dpm_2_ancestral(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key, *, eta: float = 1.0, s_noise: float = 1.0, trace: Trace | None = None
) -> Any:
    """`dpm_2` down to a lower level, then fresh noise, times s_noise, up to the next one."""
    rows = []
    for i, sigma, to in _pairs(sigmas):
        down, up = ancestral_levels(sigma, to, eta)
        rows += _midpoint(Row(sigma, draws=(i, i)), down, s_noise * up)
    return run(denoise, x, rows, keys, parameterization="noise", trace=trace)


def lms(denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, order: int = 4, trace: Trace | None = None) -> Any:
    """Linear multistep (Adams-Bashforth on the given levels), one evaluation a step: integrates the polynomial through
    the last `order` slopes. The first steps use what there is."""
    if order < 1:
        raise UserError(f"order={order}: must be at least 1")
    values, rows = levels(sigmas), []
    for i, sigma, to in _pairs(sigmas):
        nodes = values[max(i - order + 1, 0) : i + 1][::-1]
        rows.append(Row(sigma, step=Step(1.0, _lagrange_integrals(nodes, sigma, to))))
    return run(denoise, x, rows, None, parameterization="noise", trace=trace)


def _lagrange_integrals(nodes: np.ndarray, a: float, b: float) -> list[float]:
    """The integral from a to b of every basis polynomial through the nodes."""
    integrals = []
    for k, node in enumerate(nodes):
        others = np.delete(nodes, k)
        basis = Polynomial.fromroots(others) / np.prod(node - others) if len(others) else Polynomial([1.0])
        antiderivative = basis.integ()
        integrals.append(float(antiderivative(b) - antiderivative(a)))
    return integrals


PLMS: Sequence[Sequence[float]] = (
    (3 / 2, 0, -1 / 2),
    (23 / 12, -16 / 12, 0, 5 / 12),
    (55 / 24, -59 / 24, 37 / 24, 0, -9 / 24),
    (55 / 24, -59 / 24, 37 / 24, -9 / 24),
)
"""Adams-Bashforth weights of the second, third, fourth and all later steps; a zero passes over the first step's second
evaluation, which is not used again."""


def plms(denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, trace: Trace | None = None) -> Any:
    """Pseudo linear multistep (Liu et al. 2022, arXiv:2202.09778) as in latent diffusion: Adams-Bashforth weights for even
    spacing on any levels; the first step is Heun's, with two evaluations. The last level may not be 0."""
    rows = []
    for i, sigma, to in _pairs(sigmas):
        h = to - sigma
        if not to:
            raise UserError(
                f"sigmas: plms ends above 0, with a step of another sampler, and this one goes from {sigma:.4g} to 0"
            )
        if i == 0:
            rows += [Row(sigma), Row(to, h=[h], step=Step(1.0, [h / 2, h / 2]))]
        else:
            rows.append(Row(sigma, step=Step(1.0, [h * w for w in PLMS[min(i, 4) - 1]])))
    return run(denoise, x, rows, None, parameterization="noise", trace=trace)
