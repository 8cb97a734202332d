"""Timing two sides by turns, so that a busy machine slows both."""

import dataclasses
import importlib
import statistics
import time
from collections.abc import Callable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Row:
    """One result: a ratio or figure, and what was hoped for."""

    name: str
    value: float
    unit: str
    aim: str
    met: bool | None
    """None where there is no aim."""
    detail: str


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call, which must block until its work is done."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def alternate(sides: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each side, called by turns after one call each to warm up."""
    for run in sides.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, run in sides.items():
            times[name].append(seconds(run))
    return times


def spread(values: list[float]) -> str:
    """'median (least to most)' in milliseconds."""
    return f"{1e3 * statistics.median(values):.1f} ms ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Median over the rounds of seconds(over) / seconds(under); the two of a round ran one after the other."""
    return statistics.median(a / b for a, b in zip(times[over], times[under]))


def missing(*names: str, install: str = "-e '.[oracle]'") -> str:
    """Why a peer package can't be compared with, or ''."""
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            return f"not run: pip install {install} ({name}: {error})"
    return ""
