"""How far a compiled sampler is: its scan tells the number of each step, where it was traced to do so.

It is off by default, so that a sampler is a pure program; whoever draws a bar traces it within `told` and listens with `heard`.
"""

import contextlib
from collections.abc import Callable, Iterator

import jax

from jgen.types import Array

TELLS = 8
"""Times that a sampler tells at most (and once more for a rest): a call takes the time of a small network's step."""

Listener = Callable[[float], None]
"""Takes the share of the steps that is done."""


class _State:
    tracing = False
    listener: Listener | None = None


def _hear(number: Array, count: int) -> None:
    if _State.listener is not None:
        _State.listener((int(number) + 1) / count)


def tell(number: Array, count: int) -> None:
    """Says from within a program now and then that step `number` of `count` is done; only where it is traced within `told`."""
    if not _State.tracing:
        return
    every = max(count // TELLS, 1)

    def say() -> None:
        jax.debug.callback(lambda n: _hear(n, count), number)

    jax.lax.cond((number + 1) % every == 0, say, lambda: None)


@contextlib.contextmanager
def told(on: bool = True) -> Iterator[None]:
    """Samplers that are traced within it tell their steps."""
    before, _State.tracing = _State.tracing, on
    try:
        yield
    finally:
        _State.tracing = before


@contextlib.contextmanager
def heard(listener: Listener) -> Iterator[None]:
    """Programs that run within it tell the listener, from a thread of the runtime."""
    _State.listener = listener
    try:
        yield
    finally:
        _State.listener = None
