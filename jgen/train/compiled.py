"""A stage's two compiled programs, sharded over a mesh: its first state, and its step."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jgen.sharding import batch_sharding, jit_once, jit_step, replicated, state_shardings
from jgen.train.remat import phases
from jgen.train.stage import Stage, state_shapes
from jgen.train.step import Step, TrainState, make_step, scan_steps
from jgen.types import Batch, Extra, Key, Metrics, Params


@dataclasses.dataclass
class Compiled:
    """A stage's programs and where its arrays live."""

    shapes: TrainState
    shardings: TrainState
    create: Callable[..., TrainState]
    step: Any
    """(state, run key, batch or K batches) -> (state, metrics); the state is donated."""


def with_precision(step: Step, precision: str) -> Step:
    """The step with its products of float32 at a precision of JAX's, or "default" for the device's."""
    if precision == "default":
        return step

    def precise(state: TrainState, key: Key, batch: Batch) -> tuple[TrainState, Metrics]:
        with jax.default_matmul_precision(precision):
            return step(state, key, batch)

    return precise


def compile_stage(stage: Stage, mesh: Mesh, earlier: tuple[Params, Extra] | None = None) -> Compiled:
    """The stage's jitted initialisation and step, sharded over the mesh. Nothing is compiled until it is called."""
    shapes = state_shapes(stage, earlier)
    shardings = state_shardings(mesh, shapes)
    step = make_step(phases(stage), stage.optimizers, stage.ema, accumulate=stage.train.accumulate)
    step = scan_steps(step) if stage.train.scan > 1 else step
    step = with_precision(step, stage.train.matmul_precision)
    everywhere = replicated(mesh)
    return Compiled(
        shapes,
        shardings,
        jit_once(stage.create, out_shardings=shardings),
        jit_step(
            step,
            in_shardings=(shardings, everywhere, batch_sharding(mesh, int(stage.train.scan > 1))),
            out_shardings=(shardings, everywhere),
        ),
    )
