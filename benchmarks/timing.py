"""Timing two sides by turns, so that a busy machine slows both."""

import contextlib
import dataclasses
import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
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


def alternate_apart(
    sides: dict[str, Callable[[], Callable[[], Any]]], rounds: int, calls: int = 4, warm: int = 2
) -> dict[str, list[float]]:
    """Seconds of a call of each side, in a process of its own: in one heap their buffers would be in each other's way.

    Args:
      sides: module-level functions (or partials of them) that prepare a side, in its process, and return the call to time.
      calls: of a side in a row before it is the other's turn, as in training; a turn counts with its mean.
      warm: turns before the first that counts, in which the heaps grow to the size they keep.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    with contextlib.ExitStack() as stack:
        timers = {name: stack.enter_context(_timer(prepare)) for name, prepare in sides.items()}
        for counts in [False] * warm + [True] * rounds:
            for name, timer in timers.items():
                timer.send(calls)
                took = timer.recv()
                if counts:
                    times[name].append(took / calls)
    return times


@contextlib.contextmanager
def _timer(prepare: Callable[[], Callable[[], Any]]) -> Iterator[Connection]:
    """A process that, for each number sent to it, makes as many calls of what was prepared and sends back their seconds."""
    spawn = multiprocessing.get_context("spawn")  # forked, it would have the threads' locks but not the threads
    mine, its = spawn.Pipe()
    process = spawn.Process(target=_time, args=(prepare, its), daemon=True)
    process.start()
    its.close()  # so that recv raises EOFError where the process has died
    try:
        yield mine
    finally:
        mine.close()
        process.join()


def _time(prepare: Callable[[], Callable[[], Any]], requests: Connection) -> None:
    from jgen.config import MeshConfig
    from jgen.train.distributed import start

    start(MeshConfig())
    run = prepare()
    with contextlib.suppress(EOFError):
        while calls := requests.recv():
            requests.send(seconds(lambda calls=calls: [run() for _ in range(calls)]))


def spread(values: list[float]) -> str:
    """'median (least to most)' in milliseconds."""
    return f"{1e3 * statistics.median(values):.1f} ms ({1e3 * min(values):.1f} to {1e3 * max(values):.1f})"


def details(times: dict[str, list[float]]) -> str:
    """'side median (least to most), ...'."""
    return ", ".join(f"{side} {spread(seconds)}" for side, seconds in times.items())


def ratio(times: dict[str, list[float]], over: str, under: str) -> float:
    """Median over the rounds of seconds(over) / seconds(under); the two of a round ran one after the other."""
    return statistics.median(a / b for a, b in zip(times[over], times[under]))


def faster(name: str, times: dict[str, list[float]], aim: float, peer: str = "torch") -> Row:
    """The row of jgen beside a peer: how many times as fast it is, met from `aim` on."""
    value = ratio(times, peer, "jgen")
    return Row(name, value, "x", f">= {aim:.3g}", value >= aim, details(times))


def missing(*names: str, install: str = "-e '.[oracle]'") -> str:
    """Why a peer package can't be compared with, or ''."""
    for name in names:
        try:
            importlib.import_module(name)
        except (ImportError, RuntimeError) as error:
            return f"not run: pip install {install} ({name}: {error})"
    return ""
