"""The time of a program apart from that of its compilation."""

import time
from collections.abc import Callable
from typing import Any

import jax


def timed(function: Callable[..., Any], *args: Any) -> tuple[Any, float]:
    """(a function's arrays, the seconds it took); it is compiled first, for these arguments.

    >>> timed(lambda x: x + 1, jax.numpy.float32(1))[0].item()
    2.0
    """
    program = jax.jit(function).lower(*args).compile()
    began = time.monotonic()
    found = jax.block_until_ready(program(*args))
    return found, time.monotonic() - began
