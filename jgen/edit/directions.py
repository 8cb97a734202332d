"""Directions of a latent space: SeFa's closed form, GANSpace's principal components, InterFaceGAN's boundaries.

All are small computations on the host, in float64. Directions are unit vectors, one a row; rows that a decomposition gives only
up to their sign have their entry of largest magnitude positive.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from sklearn.svm import SVC

from jgen.errors import UserError


def signed(rows: np.ndarray) -> np.ndarray:
    """Rows [..., D], each turned so that its entry of largest magnitude is positive."""
    top = np.take_along_axis(rows, np.abs(rows).argmax(-1, keepdims=True), -1)
    return rows * np.where(top < 0, -1.0, 1.0)


def chosen_layers(text: str, count: int) -> list[int]:
    """Layers of a text such as "0-3,5", sorted and once each; "all" or "" are all `count`. Raises UserError for others.

    >>> chosen_layers("4,0-2,1", 6)
    [0, 1, 2, 4]
    """
    if text in ("", "all"):
        return list(range(count))
    found: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or part.endswith("-"):
            raise UserError(f"layers={text}: must be numbers and ranges, such as 0-3,5")
        found |= set(range(int(first), min(int(last or first), count) + 1))
        if int(last or first) >= count or int(first) > int(last or first):
            raise UserError(f"layers={text}: must be from 0 to {count - 1}, smaller ones first")
    return sorted(found)


def sefa(weights: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(directions [D, D], eigenvalues [D]), largest first, of the matrices [channels, D] that styles pass through.

    The eigenvectors of A^T A, where A holds the rows of all layers, each divided by its length (Shen & Zhou 2020,
    arXiv:2007.06600, and the authors' code).
    """
    rows = np.concatenate([np.asarray(w, np.float64) for w in weights])
    sizes = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.where(sizes > 0, sizes, 1.0)
    values, vectors = np.linalg.eigh(rows.T @ rows)
    return signed(vectors.T[::-1]), values[::-1]


def sefa_first_layer(kernel: np.ndarray) -> np.ndarray:
    """ProGAN's first kernel [out, in, 4, 4] as the matrix [out * 16, in] that `sefa` takes; the order of rows is free."""
    return np.moveaxis(kernel, 1, -1).reshape(-1, kernel.shape[1])


class Components(NamedTuple):
    """Principal components of styles."""

    mean: np.ndarray
    """[D]."""
    components: np.ndarray
    """[K, D]."""
    stdev: np.ndarray
    """[K]: standard deviation along each, largest first."""
    var_ratio: np.ndarray
    """[K]: share of the variance of all dimensions."""


def principal_components(samples: np.ndarray, count: int) -> Components:
    """The components of samples [N, D] (Härkönen et al. 2020, arXiv:2004.02546).

    Raises UserError unless N and D are at least `count`.
    """
    x = np.asarray(samples, np.float64)
    _check_components(count, *x.shape)
    mean = x.mean(0)
    _, sizes, rows = np.linalg.svd(x - mean, full_matrices=False)
    variance = sizes**2 / len(x)
    return Components(mean, signed(rows[:count]), np.sqrt(variance[:count]), variance[:count] / variance.sum())


def streamed_components(batches: Iterable[np.ndarray], count: int) -> Iterable[Components]:
    """The components after each of the batches [N, D], whose samples are not kept.

    The incremental estimate of Ross et al. 2008 as scikit-learn has it, which GANSpace uses: only `count` components are
    carried on, so it differs a little from that of all samples at once; stdev has N - 1.
    Raises UserError for a first batch that is smaller than `count`.
    """
    seen, mean, square, kept = 0, np.zeros(()), np.zeros(()), None
    for batch in batches:
        x = np.asarray(batch, np.float64)
        if kept is None:
            _check_components(count, *x.shape)
            mean, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        total, own = seen + len(x), x.mean(0)
        shift = np.sqrt(seen * len(x) / total) * (mean - own)
        stacked = (x - own) if kept is None else np.concatenate([kept, x - own, shift[None]])
        square = square + ((x - own) ** 2).sum(0) + shift**2
        mean, seen = (seen * mean + len(x) * own) / total, total
        _, sizes, rows = np.linalg.svd(stacked, full_matrices=False)
        sizes, rows = sizes[:count], signed(rows[:count])
        kept = sizes[:, None] * rows
        yield Components(mean, rows, sizes / np.sqrt(seen - 1), sizes**2 / square.sum())


def _check_components(count: int, samples: int, dims: int) -> None:
    if not 1 <= count <= min(samples, dims):
        raise UserError(f"components={count}: must be from 1 to {min(samples, dims)}, for {samples} samples of {dims} numbers")


def move(ws: np.ndarray, direction: np.ndarray, by: float, layers: Sequence[int]) -> np.ndarray:
    """ws [..., num_ws, D] with `by` times the direction [D] added to some rows.

    Raises UserError for a direction of another W and for rows that do not exist.
    """
    if np.shape(direction) != np.shape(ws)[-1:]:
        raise UserError(f"direction: of {np.size(direction)} numbers; styles have {np.shape(ws)[-1]}")
    if any(not 0 <= i < np.shape(ws)[-2] for i in layers):
        raise UserError(f"layers={tuple(layers)}: must be from 0 to {np.shape(ws)[-2] - 1}")
    moved = np.isin(np.arange(np.shape(ws)[-2]), layers)[:, None]
    return ws + moved * (by * np.asarray(direction))


def set_component(ws: np.ndarray, found: Components, index: int, strength: float, layers: Sequence[int]) -> np.ndarray:
    """ws [num_ws, D] moved along a component so that its first row lies `strength` deviations from the mean.

    One step for all chosen rows, measured at row 0 whether it is chosen or not, as PTI's editor does.
    """
    along, size = found.components[index], found.stdev[index]
    place = (ws[0] - found.mean) @ along / size
    return move(ws, along, float((strength - place) * size), layers)


class Boundary(NamedTuple):
    """A hyperplane between two ends of an attribute."""

    normal: np.ndarray
    """[D]: a unit vector to where the attribute's score is higher."""
    coefficients: np.ndarray
    """[D]: the same, of the length that the solver found."""
    intercept: float

    def side(self, codes: np.ndarray) -> np.ndarray:
        """Whether codes [N, D] lie on the higher side, bool [N]."""
        return codes @ self.coefficients + self.intercept > 0


class Extremes(NamedTuple):
    """The samples at both ends of an attribute, for training and validation, and the rest, as rows of the codes."""

    train: np.ndarray
    train_label: np.ndarray
    validation: np.ndarray
    validation_label: np.ndarray
    rest: np.ndarray
    rest_label: np.ndarray


def extremes(
    scores: np.ndarray, chosen: float, split: float, shuffles: tuple[np.ndarray, np.ndarray] | None = None,
    invalid: float | None = None,
) -> Extremes:  # fmt: skip
    """Which of scores [N] a boundary learns from (Shen et al. 2019, arXiv:1907.10786, and the authors' code).

    chosen: a share of the samples at each end, at most 1, or their number; at most half of all. split: the share that trains.
    shuffles: the orders of both ends, else as they are. A sample of the rest is of class 1 where its score
    is at least half-way. Raises UserError where nothing is left to learn from.
    """
    scores = np.asarray(scores, np.float64).reshape(-1)
    valid = np.arange(len(scores)) if invalid is None else np.flatnonzero(scores != invalid)
    order = valid[np.argsort(-scores[valid], kind="stable")]
    count = min(int(len(order) * chosen) if chosen <= 1 else int(chosen), len(order) // 2)
    cut = int(count * split)
    if not 0 < cut <= count:
        raise UserError(f"chosen={chosen}: of {len(order)} samples leaves {cut} to learn from at each end; needs at least 1")
    high, low = order[:count], order[len(order) - count :]
    if shuffles is not None:
        high, low = high[shuffles[0]], low[shuffles[1]]
    middle = order[count : len(order) - count]
    above = scores[middle] >= (scores[order[0]] + scores[order[-1]]) / 2
    ones, zeros = np.ones(count, int), np.zeros(count, int)
    return Extremes(
        np.concatenate([high[:cut], low[:cut]]), np.concatenate([ones[:cut], zeros[:cut]]),
        np.concatenate([high[cut:], low[cut:]]), np.concatenate([ones[cut:], zeros[cut:]]),
        middle, above.astype(int),
    )  # fmt: skip


def boundary(codes: np.ndarray, labels: np.ndarray, c: float = 1.0) -> Boundary:
    """The linear support vector machine of codes [N, D] and labels 0 or 1 [N]: hinge loss, summed, of weight c.

    The solver rounds to float32; the equations that its support vectors satisfy are then solved in float64.
    """
    x, y = np.asarray(codes, np.float64), np.where(np.asarray(labels) > 0, 1.0, -1.0)
    if len(set(y)) < 2:
        raise UserError("labels: a boundary needs samples of both classes")
    machine = SVC(kernel="linear", C=c, tol=1e-6).fit(x, y)
    alpha = np.zeros(len(x))
    alpha[machine.support_] = np.abs(machine.dual_coef_[0])
    free, full = np.flatnonzero((alpha > 1e-5 * c) & (alpha < (1 - 1e-5) * c)), alpha >= (1 - 1e-5) * c
    bound = (c * y[full]) @ x[full]
    # For free vectors y (w x + b) = 1, and sum alpha y = 0: linear in their alphas and b.
    system = np.block([[(x[free] @ x[free].T) * y[free], np.ones((len(free), 1))], [y[free], np.zeros((1, 1))]])
    right = np.concatenate([y[free] - x[free] @ bound, [-c * y[full].sum()]])
    solved = np.linalg.lstsq(system, right, rcond=None)[0]
    w, b = bound + (solved[:-1] * y[free]) @ x[free], float(solved[-1])
    if not len(free) or (solved[:-1] < 0).any() or (solved[:-1] > c).any():
        w, b = machine.coef_[0], float(machine.intercept_[0])
    return Boundary(w / np.linalg.norm(w), w, b)


def project_out(primal: np.ndarray, conditions: np.ndarray) -> np.ndarray:
    """A direction [D] without its part in the span of conditions [K, D], of length 1: an edit that leaves those attributes.

    Raises UserError where nothing is left of it.
    """
    primal, conditions = np.asarray(primal, np.float64), np.asarray(conditions, np.float64).reshape(-1, len(primal))
    if not len(conditions):
        return primal
    left = primal - np.linalg.lstsq(conditions.T, primal, rcond=None)[0] @ conditions
    if np.linalg.norm(left) < 1e-8 * np.linalg.norm(primal):
        raise UserError("conditions: the direction lies in their span, so nothing is left of it")
    return left / np.linalg.norm(left)


def strip(code: np.ndarray, direction: np.ndarray, start: float, end: float, steps: int) -> np.ndarray:
    """Codes along a direction [D], in even steps from start to end: [steps, ...].

    Of a code [D] the ends are signed distances from the boundary, of a code [num_ws, D] they are added to every row.
    """
    at = np.linspace(start, end, steps)
    if code.ndim == 1:
        at = at - code @ direction
    return code[None] + at.reshape(-1, *[1] * code.ndim) * direction
