"""Where arrays live: a named mesh, batches split over all of it, parameters copied or sharded by a rule.

`jax.jit` with NamedSharding is what pjit became. The mesh has two axes: "data", over which parameters are copied, and
"fsdp", over which each large one is split; a batch is split over both.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jgen.config import MeshConfig
from jgen.errors import UserError
from jgen.types import PyTree

SMALLEST = 4096
"""Arrays with fewer elements are copied, not split: their traffic would cost more than their memory."""


def make_mesh(config: MeshConfig | None = None) -> Mesh:
    """The mesh ("data", "fsdp") over all devices of all processes, or over config.devices of them."""
    config = config or MeshConfig()
    devices = jax.devices()
    count = config.devices or len(devices)
    if not 1 <= count <= len(devices):
        raise UserError(f"mesh.devices={config.devices}: this machine has {len(devices)}")
    if config.fsdp < 1 or count % config.fsdp:
        raise UserError(f"mesh.fsdp={config.fsdp}: must divide the {count} devices")
    # Auto axes: under explicit ones, codebook gathers and minibatch reshapes fail to type-check.
    shape, axes = (count // config.fsdp, config.fsdp), ("data", "fsdp")
    return jax.make_mesh(shape, axes, (AxisType.Auto, AxisType.Auto), devices=devices[:count])


def batch_sharding(mesh: Mesh, leading: int = 0) -> NamedSharding:
    """Rows split over every device; `leading` axes before the rows are not."""
    return NamedSharding(mesh, PartitionSpec(*[None] * leading, ("data", "fsdp")))


def replicated(mesh: Mesh) -> NamedSharding:
    """A full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def state_shardings(mesh: Mesh, shapes: PyTree) -> PyTree:
    """The sharding of every array of a state: split along its largest axis that "fsdp" divides, else copied."""
    size = mesh.shape["fsdp"]

    def rule(leaf: Any) -> NamedSharding:
        axes = [i for i, n in enumerate(leaf.shape) if n % size == 0]
        if size == 1 or not axes or np.prod(leaf.shape) < SMALLEST:
            return replicated(mesh)
        longest = max(axes, key=lambda i: leaf.shape[i])
        return NamedSharding(mesh, PartitionSpec(*["fsdp" if i == longest else None for i in range(len(leaf.shape))]))

    return jax.tree.map(rule, shapes)


def check_batch(batch_size: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises UserError unless every device gets the same number of rows of every part of a batch."""
    if batch_size < 1 or batch_size % (mesh.size * accumulate):
        parts = f" x {accumulate} parts" if accumulate > 1 else ""
        raise UserError(f"data.batch_size={batch_size}: must be divisible by {mesh.size} devices{parts}")


def rounded_up(size: int, mesh: Mesh) -> int:
    """The least multiple of the devices that is no less than `size`."""
    return -(-size // mesh.size) * mesh.size


def rounded_down(size: int, mesh: Mesh) -> int:
    """The largest multiple of the devices that is no more than `size`; but at least a row a device."""
    return max(size // mesh.size, 1) * mesh.size


def jit_step(step: Callable[..., Any], **kwargs: Any) -> Any:
    """`jax.jit` of a training step, whose first argument is donated; not to be called within another `jax.jit`.

    On a CPU it heeds the barriers of `jgen.nn.barrier`. Without them every reader of a residual block's gradient adds up
    the gradients of all later blocks again (a U-Net's step: 8 % more time).
    """
    heeded = {"xla_disable_hlo_passes": "cse_barrier_expander"} if jax.default_backend() == "cpu" else None
    return jax.jit(step, donate_argnums=0, compiler_options=heeded, **kwargs)


def jit_once(function: Callable[..., Any], **kwargs: Any) -> Any:
    """`jax.jit` for a program that runs once, such as initialisation: on a CPU it is compiled quickly, not tightly.

    Drawing the initial weights of a small U-Net compiles in 4 s rather than 18 s; the numbers are the same. Where optimizations
    are off (JAX_DISABLE_MOST_OPTIMIZATIONS) it is compiled more quickly still.
    """
    own = jax.default_backend() == "cpu" and not jax.config.read("jax_disable_most_optimizations")
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1} if own else None, **kwargs)
