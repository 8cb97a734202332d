"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor and a corrector of the same order, the latter at no extra call.

In lambda = -log sigma, on the clean image. What is evaluated at the predicted point corrects the step that led there, and
serves the next step too. B(h) = expm1(-h), the authors' bh2.
"""

import math
from typing import Any

import numpy as np

from jgen.errors import UserError
from jgen.samplers.common import Trace
from jgen.samplers.linear import Row, Step, levels, run
from jgen.types import Array, Denoise, Key


def _weights(places: np.ndarray, h: float) -> np.ndarray:
    """Weights of (D at lambda + places_k h minus D at lambda) / places_k, by the order conditions (paper, eq. 5).

    places: relative positions r_k, 1 for the end of the step, negative for the past.
    """
    size, b = len(places), np.expm1(-h)
    phi, targets = b / -h - 1, []
    for k in range(1, size + 1):
        targets.append(phi * math.factorial(k) / b)
        phi = phi / -h - 1 / math.factorial(k + 1)
    return np.linalg.solve(np.vander(places, size, increasing=True).T, targets)


def unipc(
    denoise: Denoise, x: Array, sigmas: Any, keys: Key | None = None, *, order: int = 2, trace: Trace | None = None
) -> Any:
    """Images [B, H, W, C] from x = sigmas[0] * noise; one call a step. A last level of 0 is reached by a step of first
    order. Raises UserError for orders but 1, 2 and 3."""
    if order not in (1, 2, 3):
        raise UserError(f"order={order}: must be 1, 2 or 3")
    s = levels(sigmas)
    steps = len(s) - 1
    with np.errstate(divide="ignore"):
        lam = -np.log(s)

    def combination(i: int, now: int, corrected: bool) -> tuple[float, list[float]]:
        """(factor of x_i, factors of D at i, i - 1, ...) of step i -> i + 1; corrected: D at i + 1 comes first."""
        if s[i + 1] == 0:
            return 0.0, [1.0]
        h = lam[i + 1] - lam[i]
        b = float(np.expm1(-h))
        past = np.array([(lam[i - k] - lam[i]) / h for k in range(1, now)])
        places = np.append(past, 1.0) if corrected else past
        weights = _weights(places, h) if len(places) else np.zeros(0)
        if not corrected and now == 2:
            weights = np.array([0.5])
        if corrected and now == 1:
            weights = np.array([0.5])
        values = np.zeros(now + 1)  # [D at i + 1, D at i, D at i - 1, ...]
        values[1] = -b
        for weight, place, slot in zip(weights, places, [*range(2, now + 1), 0]):
            values[slot] -= b * weight / place
            values[1] += b * weight / place
        return s[i + 1] / s[i], list(values if corrected else values[1:])

    rows = []
    for i in range(steps):
        now = min(order, i + 1)
        # The state is the corrected x_{i - 1} here; the row is evaluated at x_i as predicted from it.
        if i == 0:
            rows.append(Row(s[0], step=Step(1.0, ())))
            continue
        before = min(order, i, steps - i + 1)
        keep, values = combination(i - 1, before, corrected=False)
        kept, corrected = combination(i - 1, before, corrected=True)
        rows.append(Row(s[i], keep, values, step=Step(kept, corrected)))
    keep, values = combination(steps - 1, min(order, steps, 1 if s[-1] == 0 else now), corrected=False)
    last = rows[-1].step
    assert last is not None
    # The last step has no evaluation at its end, so it follows the correction before it at once.
    whole = [keep * c for c in last.h] or []
    size = max(len(whole), len(values))
    joined = np.zeros(size)
    joined[: len(whole)] += whole
    joined[: len(values)] += values
    rows[-1] = rows[-1]._replace(step=Step(keep * last.x, list(joined)))
    return run(denoise, x, rows, None, trace=trace)
