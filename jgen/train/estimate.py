"""Memory and time of a step on a device, worked out from shapes alone, and the settings that make it fit."""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config.train import Accelerator
from jgen.train.remat import phases
from jgen.train.stage import Stage, input_shapes, state_shapes
from jgen.train.step import Phase, TrainState
from jgen.types import Array, PyTree

RECOMPUTED = 12
"""With remat, the arrays of a block that are computed again, as many of the largest that is kept: so it is in U-Nets."""
BUSY = 0.4
"""The share of a device's peak that a training is taken to reach."""


@dataclass(frozen=True)
class Device:
    """An accelerator: its memory in bytes, and its peak of dense products in FLOP/s, by the type of the numbers.

    float32 products are those of the default precision: TF32 where a GPU has it, bfloat16 passes on a TPU.
    """

    memory: float
    float32: float
    bfloat16: float


DEVICES: Mapping[Accelerator, Device] = {
    "v100": Device(32e9, 15.7e12, 15.7e12),
    "a100": Device(80e9, 156e12, 312e12),
    "h100": Device(80e9, 495e12, 989e12),
    "h200": Device(141e9, 495e12, 989e12),
    "tpu_v4": Device(32e9, 275e12, 275e12),
    "tpu_v5e": Device(16e9, 197e12, 197e12),
    "tpu_v5p": Device(95e9, 459e12, 459e12),
}
"""By the makers' data sheets."""
StageWith = Callable[[str, bool, int], Stage]
"""(dtype, remat, accumulate) -> a stage with these settings of training."""


class Memory(NamedTuple):
    """Bytes on one device."""

    state: int
    """Weights, the optimizers' moments, and averages."""
    gradients: int
    activations: int
    """All that the backward pass keeps of the forward one, and that it computes again at a time."""

    @property
    def total(self) -> int:
        return self.state + self.gradients + self.activations


MemoryBySettings = Callable[[str, bool, int], Memory]
"""(dtype, remat, accumulate) -> the memory of a step."""


class Change(NamedTuple):
    """Settings of training with which a step may fit."""

    dtype: str
    remat: bool
    accumulate: int
    fsdp: int

    def flags(self, now: "Change") -> str:
        """The options that differ from those now, as they are typed."""
        found = []
        if self.dtype != now.dtype:
            found.append(f"--train.dtype {self.dtype}")
        if self.remat != now.remat:
            found.append("--train.remat")
        if self.accumulate != now.accumulate:
            found.append(f"--train.accumulate {self.accumulate}")
        if self.fsdp != now.fsdp:
            found.append(f"--mesh.fsdp {self.fsdp}")
        return " ".join(found)


def devices_for(batch: int, most: int) -> int:
    """The devices that a batch goes to, of so many: the greatest number that divides it.

    >>> devices_for(64, 8), devices_for(50, 8)
    (8, 5)
    """
    return max(n for n in range(1, most + 1) if batch % n == 0)


def memory(stage: Stage, devices: int, shapes: TrainState | None = None) -> Memory:
    """The memory of a step on each of so many devices, without FSDP. shapes: of the stage's state, where they are known.

    Activations are what reverse-mode differentiation keeps of the forward pass, of the update that keeps most. A compiler keeps
    less: it computes some again, and fuses others.
    """
    shapes = state_shapes(stage) if shapes is None else shapes
    rows = max(stage.data.batch_size // (devices * stage.train.accumulate), 1)
    gradients = max(nbytes(shapes.params[phase.player]) for phase in stage.phases)
    return Memory(nbytes(shapes), gradients, max(_kept(stage, phase, shapes, rows) for phase in phases(stage)))


def memory_by_settings(stage_with: StageWith, now: Change, devices: int) -> MemoryBySettings:
    """The memory of a step on each of so many devices under other settings of training than now.

    Tracing a large network takes seconds, so that activations are found for a whole batch and for its smallest parts, and are
    taken to grow as a line with the images between; nothing is traced again.
    """
    stage = stage_with(*now[:3])
    shapes, parts = state_shapes(stage), _accumulations(stage, devices, now)
    most, least = parts[0], parts[-1]

    @functools.cache
    def traced(dtype: str, remat: bool, accumulate: int) -> Memory:
        return memory(stage_with(dtype, remat, accumulate), devices, shapes)

    def found(dtype: str, remat: bool, accumulate: int) -> Memory:
        if accumulate in (most, least):
            return traced(dtype, remat, accumulate)
        large, small = traced(dtype, remat, most), traced(dtype, remat, least)
        share = (1 / accumulate - 1 / least) / (1 / most - 1 / least)
        return small._replace(activations=round(small.activations + share * (large.activations - small.activations)))

    return found


def nbytes(tree: PyTree) -> int:
    """Bytes of a tree of arrays or of their shapes."""
    return sum(int(np.prod(leaf.shape)) * _itemsize(leaf.dtype) for leaf in jax.tree.leaves(tree))


def _itemsize(dtype: Any) -> int:
    return 8 if jnp.issubdtype(dtype, jax.dtypes.prng_key) else np.dtype(dtype).itemsize


def _kept(stage: Stage, phase: Phase, shapes: TrainState, rows: int) -> int:
    """Bytes that the backward pass of an update keeps of its forward pass, the player's weights apart."""

    def pull(own: PyTree, state: TrainState, key: Array, batch: Any) -> Any:
        def loss(own: PyTree) -> Any:
            return phase.loss({**state.params, phase.player: own}, state.extra, key, batch)

        return jax.vjp(loss, own, has_aux=True)[1]

    own = shapes.params[phase.player]
    found = jax.eval_shape(pull, own, shapes, jax.random.key(0), input_shapes(stage, rows))
    again = RECOMPUTED * max(nbytes(leaf) for leaf in jax.tree.leaves(found)) if stage.train.remat else 0
    return max(nbytes(found) - nbytes(own), 0) + again


def _accumulations(stage: Stage, devices: int, now: Change) -> list[int]:
    """The parts that a batch can be added up from, fewest first."""
    rows = max(stage.data.batch_size // devices, 1)
    return sorted({now.accumulate, *(k for k in (1, 2, 4, 8, 16, 32, 64) if k > now.accumulate and rows % k == 0)})


def changes(stage: Stage, devices: int, now: Change) -> Iterator[Change]:
    """Settings in the order in which they are worth trying: the cheapest in time and in what they change first."""
    dtypes = [now.dtype, *(["bfloat16"] if now.dtype == "float32" and "dtype" in stage.supports else [])]
    remats = [now.remat] if now.remat else [False, True]
    shares = sorted({now.fsdp, devices})
    for fsdp, dtype, remat, parts in itertools.product(shares, dtypes, remats, _accumulations(stage, devices, now)):
        yield Change(dtype, remat, parts, fsdp)


def advice(memory_of: MemoryBySettings, stage: Stage, now: Change, devices: int, limit: float) -> str:
    """The options with which a step fits into `limit` bytes a device; "" where it fits as it is, or none of them do."""
    for change in changes(stage, devices, now):
        found = memory_of(*change[:3])
        if (found.state + found.gradients) // change.fsdp + found.activations <= limit:
            return change.flags(now)
    return ""


def days(flops: float, steps: int, device: Device, dtype: str, devices: int) -> float:
    """Days of a training on so many devices that reach BUSY of their peak."""
    peak = device.bfloat16 if dtype == "bfloat16" else device.float32
    return flops * steps / (devices * BUSY * peak) / 86400


def with_training(stage_of: Callable[[Any], Sequence[Stage]], config: Any, index: int) -> StageWith:
    """A stage of a config under other settings of training; stage_of builds its stages."""

    def made(dtype: str, remat: bool, accumulate: int) -> Stage:
        train = replace(config.train, dtype=dtype, remat=remat, accumulate=accumulate)
        return stage_of(replace(config, train=train))[index]

    return made
