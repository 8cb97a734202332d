"""Scores against the usual numpy and scipy code, value and time."""

import contextlib

import numpy as np

from benchmarks.timing import Row, alternate, details, missing, ratio


def _row(name: str, times: dict[str, list[float]], aim: float, detail: str) -> Row:
    value = ratio(times, "reference", "jgen")
    times_text = details(times)
    return Row(name, value, "x", f">= {aim}", value >= aim, f"{times_text}; {detail}")


def frechet() -> list[Row]:
    """Moments and distance of 10,000 x 2,048 features against numpy's covariance and scipy's sqrtm (pytorch-fid's way)."""
    from scipy.linalg import sqrtm

    from jgen.metrics import frechet

    random = np.random.default_rng(0)
    mix = random.normal(size=(2048, 2048)).astype(np.float32) / 45
    x, y = (np.maximum(random.normal(size=(10_000, 2048)).astype(np.float32) @ mix + shift, 0) for shift in (0.0, 0.2))
    values = {}

    def ours() -> None:
        values["jgen"] = frechet.distance(frechet.feature_moments(x), frechet.feature_moments(y))

    def reference() -> None:
        (m1, c1), (m2, c2) = ((v.mean(0), np.cov(v, rowvar=False)) for v in (x, y))
        root = sqrtm(c1 @ c2)
        values["reference"] = float(np.square(m1 - m2).sum() + np.trace(c1) + np.trace(c2) - 2 * np.trace(root).real)

    times = alternate({"jgen": ours, "reference": reference}, 3)
    difference = abs(values["jgen"] / values["reference"] - 1)
    rows = [_row("frechet", times, 3, f"values {values}")]
    return [*rows, Row("frechet/difference", difference, "relative", "<= 1e-3", difference <= 1e-3, "")]


def precision_recall() -> list[Row]:
    """Precision, recall, density and coverage of 10,000 x 512 against the authors' package prdc, and against tight numpy."""
    from jgen.metrics.neighbours import manifold

    random = np.random.default_rng(0)
    real, fake = (random.normal(size=(10_000, 512)).astype(np.float32) * s for s in (1.0, 0.98))
    values = {}

    def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1)[None] - 2 * a @ b.T, 0)

    def tight() -> None:
        r, f = (np.partition(distances(x, x), 3, axis=1)[:, 3] for x in (real, fake))
        d = distances(fake, real)
        inside = d < r[None]
        coverage = (d.min(0) < r).mean()
        values["numpy"] = [inside.any(1).mean(), (d < f[:, None]).any(0).mean(), inside.sum() / 3 / len(d), coverage]

    def prdc() -> None:
        from prdc import compute_prdc  # pyright: ignore

        with contextlib.redirect_stdout(None):
            found = compute_prdc(real, fake, 3)
        values["prdc"] = [found[k] for k in ("precision", "recall", "density", "coverage")]

    def ours() -> None:
        found = manifold(real, fake, 3)
        values["jgen"] = [found.precision, found.recall, found.density, found.coverage]

    rows, sides = [], {"numpy": tight}
    if why := missing("prdc"):
        rows.append(Row("precision_recall/prdc", float("nan"), "x", ">= 3", None, why))
    else:
        sides["prdc"] = prdc
    times = alternate({"jgen": ours, **sides}, 3)
    detail = details(times) + "; [2048, 2048] at a time, not [10000, 10000]"
    for name in sides:
        worst = float(np.abs(np.subtract(values["jgen"], values[name])).max())
        value = ratio(times, name, "jgen")
        rows.append(Row(f"precision_recall/{name}", value, "x", ">= 3", value >= 3, f"differs by {worst:.0e}; {detail}"))
    return rows


def kid() -> list[Row]:
    """100 subsets of 1,000 from 10,000 x 2,048 features against numpy (clean-fid's way)."""
    from jgen.metrics import kernel

    random = np.random.default_rng(0)
    x, y = (np.maximum(random.normal(size=(10_000, 2048)), 0).astype(np.float32) for _ in range(2))
    values = {}

    def reference() -> None:
        draw, total = np.random.default_rng(0), 0.0
        for _ in range(100):
            a, b = (v[draw.choice(len(v), 1000, replace=False)] for v in (x, y))
            within = (a @ a.T / 2048 + 1) ** 3 + (b @ b.T / 2048 + 1) ** 3
            across = (a @ b.T / 2048 + 1) ** 3
            total += (within.sum() - np.diag(within).sum()) / 999 - across.sum() * 2 / 1000
        values["reference"] = total / 100 / 1000

    def ours() -> None:
        values["jgen"] = kernel.kid(x, y)[0]

    times = alternate({"jgen": ours, "reference": reference}, 3)
    return [_row("kid", times, 3, f"values {values}")]


BENCHMARKS = {"frechet": frechet, "precision_recall": precision_recall, "kid": kid}
