"""Strict by default: warnings are errors, ranks must match, and compiled programs are kept between runs."""

import os
import tempfile
from pathlib import Path

import jaxlib.version

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of a test's time is compilation, and tiny networks run as fast: half the time in all.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# Without those optimizations the older of the compiler's two ways to write fused loops takes two thirds of the time; with them
# it takes minutes for many random draws. An XLA without the flag would end the process: it is for those that have it.
QUICKER, FLAGS = "--xla_cpu_use_fusion_emitters=false", os.environ.get("XLA_FLAGS", "")
if jaxlib.version.__version_info__[:2] == (0, 10) and QUICKER not in FLAGS:
    os.environ["XLA_FLAGS"] = f"{FLAGS} {QUICKER}".strip()
CACHE = os.environ.setdefault("JGEN_CACHE", str(Path(tempfile.gettempdir()) / "jgen-tests-cache"))

import jax

jax.config.update("jax_num_cpu_devices", 1)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_compilation_cache_dir", str(Path(CACHE) / "xla"))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
