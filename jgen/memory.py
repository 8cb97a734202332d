"""Memory of CPU programs, kept between their runs.

XLA on a CPU asks malloc for the buffers of a program at every run and frees them after it. glibc gives blocks that large
straight back to the system, which hands out the next ones page by page, zeroed: up to a third of a training step.
"""

import ctypes
import importlib.util
import os
import re
import sys

# malloc.h
TRIM_THRESHOLD, TOP_PAD, MMAP_MAX, ARENA_MAX = -1, -2, -4, -8

NEVER = -1
"""Bytes at the end of the heap from which they are given back: malloc reads this as the largest number there is."""

HEADER = 2 * ctypes.sizeof(ctypes.c_size_t)
"""Bytes that malloc adds to a block."""
GAPS = range(2**13, 2**20)
"""Bytes of what `fill` takes: smaller blocks are quickly found, larger ones are few."""

_kept = False


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
    global _kept
    _kept = mallopt is not None and all([mallopt(*setting) == 1 for setting in settings.items()])
    return _kept


def fill() -> int:
    """Takes the free blocks of middling size for good, where `keep` had its way, and says how many bytes they were.

    Compiling leaves thousands of them between what it keeps. At every block that a program asks for malloc looks through
    them, while the other threads wait: a training step took a fifth longer in the process that had compiled it. To be called
    after compiling only, since what was free for other uses is taken too.
    """
    taken = 0
    if _kept:
        libc = ctypes.CDLL(None)
        malloc, free = libc.malloc, libc.free
        malloc.restype, malloc.argtypes, free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
        free(malloc(2 * GAPS.stop))  # for which malloc sorts what was freed last: its report has that without sizes
        # From the largest on: what is left over of a block is then looked at as a smaller one at most.
        for size, count in sorted(_gaps(), reverse=True):
            taken += size * sum(malloc(size - HEADER) is not None for _ in range(count))
    return taken


def _gaps() -> list[tuple[int, int]]:
    """(bytes, how many) of the free blocks that `fill` takes, as malloc reports them."""
    libc = ctypes.CDLL(None)
    libc.fdopen.restype, libc.fdopen.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_char_p]
    libc.malloc_info.argtypes, libc.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]
    with os.fdopen(os.memfd_create("malloc"), "r") as report:
        stream = libc.fdopen(os.dup(report.fileno()), b"w")
        libc.malloc_info(0, stream)
        libc.fclose(stream)
        report.seek(0)
        found = re.findall(r'<size from="(\d+)" to="\d+" total="\d+" count="(\d+)"', report.read())
    return [(int(size), int(count)) for size, count in found if int(size) in GAPS]


def has_accelerators() -> bool:
    """Whether JAX may find more than the CPU here. Does not start JAX."""
    if os.environ.get("JAX_PLATFORMS", "").split(",")[0] == "cpu":
        return False
    return any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))
