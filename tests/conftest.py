"""Strict by default: warnings are errors, ranks must match, and compiled programs are kept between runs."""

import os
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation, and tiny networks run as fast: half the time in all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
CACHE = os.environ.setdefault("JGEN_CACHE", str(Path(tempfile.gettempdir()) / "jgen-tests-cache"))

import jax

jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(CACHE) / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
