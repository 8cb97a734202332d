"""How far a compiled sampler is: its scan reports its steps, where it was traced to do so.

It is off by default, so that a sampler is a pure program; whoever draws a bar traces it within `reporting` and receives the
reports within `listening`. In the same way `watched` receives the clean images that a sampler predicts on its way.
"""

import contextlib
from collections.abc import Callable, Iterator

import jax
import numpy as np

from jgen.types import Array

REPORTS = 8
"""Times that a sampler reports at most (and once more for a rest): a call takes the time of a small network's step."""

Listener = Callable[[float], None]
"""Takes the share of the steps that is done."""


FRAMES = 60
"""Times that a sampler reports its images at most, and once more for the last."""


class _State:
    tracing = False
    listener: Listener | None = None
    frames: dict[int, np.ndarray] | None = None


def _receive(number: Array, count: int) -> None:
    if _State.listener is not None:
        _State.listener((int(number) + 1) / count)


def _keep(number: Array, images: Array) -> None:
    if _State.frames is not None:
        _State.frames[int(number)] = np.asarray(images)


def _report_images(number: Array, count: int, images: Array) -> None:
    now = ((number + 1) % -(-count // FRAMES) == 0) | (number + 1 == count)
    jax.lax.cond(now, lambda: jax.debug.callback(_keep, number, images), lambda: None)


def report(number: Array, count: int, images: Array | None = None) -> None:
    """Reports from within a program that step `number` of `count` is done, now and then; only where traced in `reporting`.

    images: the clean images [B, H, W, C] that are predicted at this step, for `watched`.
    """
    if _State.frames is not None and images is not None:
        _report_images(number, count, images)
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


@contextlib.contextmanager
def watched() -> Iterator[dict[int, np.ndarray]]:
    """{step: clean images [B, H, W, C]} of the sampler that is traced and run within it; filled when it ends."""
    _State.frames = frames = {}
    try:
        yield frames
        jax.effects_barrier()
    finally:
        _State.frames = None
