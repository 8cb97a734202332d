"""How far a compiled sampler is: its scan reports its steps, where it was traced to do so.

It is off by default, so that a sampler is a pure program; whoever draws a bar traces it within `reporting` and receives the
reports within `listening`.
"""

import contextlib
from collections.abc import Callable, Iterator

import jax

from jgen.types import Array

REPORTS = 8
"""Times that a sampler reports at most (and once more for a rest): a call takes the time of a small network's step."""

Listener = Callable[[float], None]
"""Takes the share of the steps that is done."""


class _State:
    tracing = False
    listener: Listener | None = None


def _receive(number: Array, count: int) -> None:
    if _State.listener is not None:
        _State.listener((int(number) + 1) / count)


def report(number: Array, count: int) -> None:
    """Reports from within a program that step `number` of `count` is done, now and then; only where traced in `reporting`."""
    if not _State.tracing:
        return
    every = max(count // REPORTS, 1)

    def send() -> None:
        jax.debug.callback(lambda n: _receive(n, count), number)

    jax.lax.cond((number + 1) % every == 0, send, lambda: None)


@contextlib.contextmanager
def reporting(on: bool = True) -> Iterator[None]:
    """Samplers that are traced within it report their steps."""
    before, _State.tracing = _State.tracing, on
    try:
        yield
    finally:
        _State.tracing = before


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Programs that run within it report to the listener, from a thread of the runtime."""
    _State.listener = listener
    try:
        yield
    finally:
        _State.listener = None
