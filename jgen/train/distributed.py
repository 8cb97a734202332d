"""Devices and processes, set up before JAX first asks for them."""

import functools
import logging
import os

import jax

from jgen.config import MeshConfig
from jgen.errors import UserError
from jgen.files import cache_folder
from jgen.train import lost


def cores() -> int:
    """CPU cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def start(mesh: MeshConfig, batch_size: int = 0) -> None:
    """Joins the other processes if there are any, makes one CPU device a core, and turns on the compilation cache.

    Call it before anything touches a device. On a CPU a batch that the cores do not divide runs on one device.
    """
    # Orbax logs whole tracebacks of what it then raises; jgen reports what is raised in one line instead.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        count = mesh.devices or (cores() if batch_size % cores() == 0 else 1)
        jax.config.update("jax_num_cpu_devices", max(count // max(mesh.num_processes, 1), 1))
    if cache := cache_folder("xla"):
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    if not (mesh.distributed or mesh.coordinator):
        return
    if mesh.coordinator and not (mesh.num_processes > 0 and 0 <= mesh.process_id < mesh.num_processes):
        raise UserError(
            f"mesh.coordinator={mesh.coordinator}: goes with --mesh.num-processes N and --mesh.process-id 0..N-1, "
            f"not {mesh.num_processes} and {mesh.process_id}"
        )
    lost.Watch()
    join = functools.partial(jax.distributed.initialize, heartbeat_timeout_seconds=lost.HEARTBEAT_SECONDS)
    try:
        if mesh.coordinator:
            join(mesh.coordinator, mesh.num_processes, mesh.process_id)
        else:
            join()
    except (RuntimeError, ValueError) as error:
        raise UserError(f"mesh: the processes could not join ({str(error).splitlines()[0]})") from error
