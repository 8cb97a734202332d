"""Memory of CPU programs, kept between their runs.

XLA on a CPU asks malloc for the buffers of a program at every run and frees them after it. glibc gives blocks that large
straight back to the system, which hands out the next ones page by page, zeroed: up to a third of a training step.
"""

import ctypes
import importlib.util
import os
import sys

# malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8

NEVER = -1
"""Bytes at the end of the heap from which they are given back: malloc reads this as the largest number there is."""


def keep() -> bool:
    """Has malloc keep what is freed, and says whether it could.

    Not where malloc is another than glibc's or was set by its environment variables, nor beside accelerators, whose buffers
    are not malloc's, nor once numpy or JAX have started threads: those keep the heaps they have.
    """
    if not sys.platform.startswith("linux") or "numpy" in sys.modules or has_accelerators():
        return False
    if any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # One heap, since those of other threads hold no large blocks; no mappings outside it; steps of 64 MiB.
    settings = {ARENA_MAX: 1, MMAP_MAX: 0, TRIM_THRESHOLD: NEVER, TOP_PAD: 2**26}
    return mallopt is not None and all([mallopt(*setting) == 1 for setting in settings.items()])


def has_accelerators() -> bool:
    """Whether JAX may find more than the CPU here, told without starting it."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return False
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
