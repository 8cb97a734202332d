"""The loop under every explicit solver of the diffusion ODE or SDE in continuous coordinates (x, sigma).

Whatever its order and however it gets there, such a solver puts in linear combinations of its state, of what the network
said before and of fresh noise; their coefficients depend on the noise levels alone. So a solver is a table made on the
host in float64, a row an evaluation of the network, and one compiled scan runs any table: the network is in the program
once, whether its solver calls it once or three times a step.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError, check_choice
from jgen.samplers.common import Trace, check_finite, check_floats, check_keys, noise
from jgen.steps import report
from jgen.types import Array, Denoise, Key

Parameterization = Literal["data", "noise"]
"""The quantity that solvers combine: the clean image D(x, sigma), or the noise direction (x - D(x, sigma)) / sigma."""


class Step(NamedTuple):
    """The end of a step: x <- x * state + sum of h_k * (k-th newest evaluation) + z * fresh noise."""

    x: float
    h: Sequence[float]
    """Newest first; this row's evaluation is the newest."""
    z: float = 0.0


class Row(NamedTuple):
    """One evaluation: of `x * state + sum of h_k * (k-th newest evaluation before) + z * fresh noise` at level sigma."""

    sigma: float
    x: float = 1.0
    h: Sequence[float] = ()
    z: float = 0.0
    churn: float = 0.0
    """Before all else, state <- state + churn * fresh noise."""
    step: Step | None = None
    """The step that ends here; None within a step of several evaluations."""
    draws: tuple[int, int] = (0, 0)
    """Numbers of the draws of noise before (z, churn) and after (step.z) the evaluation."""


def run(
    denoise: Denoise,
    x: Array,
    rows: Sequence[Row],
    keys: Key | None,
    *,
    parameterization: Parameterization = "data",
    trace: Trace | None = None,
) -> Any:
    """The images [B, H, W, C] that a table of rows makes of x; (images, traces, one a step) with a trace.

    Raises UserError for a table with noise where no keys [B] were given or do not fit, for an x that is not of floats, and
    for a denoiser's images of another shape.
    """
    check_choice(get_args(Parameterization), parameterization=parameterization)
    check_floats(x)
    before, after = (any(c) for c in zip(*((r.z or r.churn, r.step.z if r.step else 0.0) for r in rows)))
    if before or after:
        check_keys(keys, x)
    depth = max(max(len(r.h) + 1, len(r.step.h) if r.step else 0) for r in rows)

    def coefficients(values: Sequence[float]) -> list[float]:
        return [*values, *[0.0] * (depth - len(values))]

    ends = np.array([r.step is not None for r in rows])
    steps = [r.step or Step(1.0, ()) for r in rows]
    table = {
        "sigma": [r.sigma for r in rows], "x": [r.x for r in rows], "h": [coefficients(r.h) for r in rows],
        "z": [r.z for r in rows], "churn": [r.churn for r in rows],
        "to_x": [s.x for s in steps], "to_h": [coefficients(s.h) for s in steps], "to_z": [s.z for s in steps],
    }  # fmt: skip
    scanned = {name: jnp.asarray(np.asarray(values), x.dtype) for name, values in table.items()}
    scanned |= {"draws": jnp.asarray([r.draws for r in rows], jnp.int32), "number": jnp.arange(len(rows))}

    def body(carry: tuple[Array, tuple[Array, ...]], row: dict[str, Array]) -> Any:
        state, history = carry
        given = 0.0
        if before:
            assert keys is not None
            z = noise(keys, x.shape[1:], row["draws"][0]).astype(x.dtype)
            state, given = state + row["churn"] * z, row["z"] * z
        point = row["x"] * state + _combine(row["h"], history) + given
        clean = jnp.asarray(denoise(point, jnp.broadcast_to(row["sigma"], x.shape[:1])), x.dtype)
        if clean.shape != x.shape:
            shapes = f"{list(clean.shape)} for x of {list(x.shape)}"
            raise UserError(f"denoise: returned {shapes}; must be clean images of the same shape")
        check_finite(clean, "prediction", row["number"], row["sigma"])
        report(row["number"], len(rows), clean)
        value = clean if parameterization == "data" else (point - clean) / row["sigma"]
        history = (value, *history[:-1])
        state = row["to_x"] * state + _combine(row["to_h"], history)
        if after:
            assert keys is not None
            state = state + row["to_z"] * noise(keys, x.shape[1:], row["draws"][1]).astype(x.dtype)
        return (state, history), None if trace is None else trace(state, clean)

    (x, _), traces = lax.scan(body, (x, (jnp.zeros_like(x),) * depth), scanned)
    return x if trace is None else (x, _at(traces, ends))


def _combine(coefficients: Array, values: Sequence[Array]) -> Array:
    total = coefficients[0] * values[0]
    for k in range(1, len(values)):
        total = total + coefficients[k] * values[k]
    return total


def _at(traces: Any, ends: np.ndarray) -> Any:

    return jax.tree.map(lambda x: x[np.flatnonzero(ends)], traces)


def levels(sigmas: Any) -> np.ndarray:
    """The levels [N + 1] of a solver of N steps. Raises UserError unless they fall and only the last is 0."""
    values = np.asarray(sigmas, np.float64)
    if values.ndim != 1 or len(values) < 2:
        raise UserError(f"sigmas: shape {values.shape}; a sampler needs at least 2 levels, its start and its end")
    if not (np.all(np.diff(values) < 0) and values[-1] >= 0 and np.isfinite(values[0])):
        raise UserError(f"sigmas={np.array2string(values, threshold=6, precision=4)}: must fall, to 0 or above")
    return values
