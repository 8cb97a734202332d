"""Memory of CPU programs is kept between runs."""

import os
import subprocess
import sys

import pytest

from jgen import memory

FAULTS = """
import resource
from jgen import memory
memory.keep()
import jax, jax.numpy as jnp
def run():
    jax.block_until_ready(step(x))
# Its buffer is the product, 32 MiB or 8,192 pages.
step, x = jax.jit(lambda x: jnp.sum((x @ x.T)[::2] ** 2)), jnp.ones((2896, 8))
for _ in range(10):
    run()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        run()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(min(faults() for _ in range(4)))  # a heap that still grows takes pages of its own
"""
GAPS = """
import ctypes
from jgen import memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
def leave_gaps():
    blocks = [libc.malloc(size) for _ in range(500) for size in (100_000, 2_000)]
    for block in blocks[::2]:
        libc.free(block)
leave_gaps()
print(memory.fill())  # malloc does not keep anything yet
print(memory.keep())
leave_gaps()
print(memory.fill(), memory.fill())
"""
clean = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_"))}


@pytest.mark.skipif(sys.platform != "linux" or memory.has_accelerators(), reason="of glibc, on a CPU")
def test_a_program_s_buffers_are_not_given_back_between_its_runs():
    def faults(**env):
        done = subprocess.run([sys.executable, "-c", FAULTS], env=clean | env, capture_output=True, text=True, check=True)
        return int(done.stdout)

    kept, default = faults(), faults(MALLOC_PERTURB_="0")  # any setting of the user's is left alone
    assert 4 * kept < default


@pytest.mark.skipif(sys.platform != "linux" or memory.has_accelerators(), reason="of glibc, on a CPU")
def test_gaps_that_compiling_leaves_are_filled():
    done = subprocess.run([sys.executable, "-c", GAPS], env=clean, capture_output=True, text=True, check=True)
    before, kept, first, again = done.stdout.split()
    assert (before, kept) == ("0", "True")
    assert int(first) >= 40_000_000
    assert int(again) < 1_000_000


def test_settings_of_the_user_s_and_running_threads_stay(monkeypatch):
    assert not memory.keep()  # numpy is here
    monkeypatch.delitem(sys.modules, "numpy")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    assert not memory.keep()
