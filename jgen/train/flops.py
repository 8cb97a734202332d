"""Floating-point operations of a training step, by the book: from its traced program, before a compiler changes it."""

from dataclasses import replace
from typing import Any

import jax
from jax.extend.core import Jaxpr, jaxpr_as_fun, jaxprs_in_params

from jgen.nn import winograd
from jgen.train.remat import phases
from jgen.train.stage import Stage, batch_shapes, state_shapes
from jgen.train.step import TrainState, make_step


def flops(stage: Stage, shapes: TrainState | None = None) -> float:
    """Operations of a step on the whole batch, on average: an update of every k-th step counts 1/k of its own.

    Convolutions and products count as their definitions say, loops as often as they turn. Nothing is compiled.
    shapes: of the stage's state, where they are known.
    """
    stage = replace(stage, train=replace(stage.train, scan=1, accumulate=1))  # however it is run
    inputs = state_shapes(stage) if shapes is None else shapes, jax.random.key(0), batch_shapes(stage)
    total = 0.0
    for i, phase in enumerate(phases(stage)):
        averages = {} if i else stage.ema  # which move once a step
        step = make_step([phase._replace(every=1)], stage.optimizers, averages)
        with winograd.off():
            traced = jax.jit(step).trace(*inputs)
            total += (_counted(traced.lower()) + _further_turns(traced.jaxpr.jaxpr)) / phase.every
    return total


def _counted(lowered: Any) -> float:
    """XLA's count of a program, in which a loop is run once."""
    return (lowered.cost_analysis() or {}).get("flops", float("nan"))


def _further_turns(program: Jaxpr) -> float:
    """Operations of the turns of a program's loops after each one's first."""
    total = 0.0
    for equation in program.eqns:
        inner = sum(_further_turns(part) for part in jaxprs_in_params(equation.params))
        if equation.primitive.name == "scan" and equation.params["length"] > 1:
            body = equation.params["jaxpr"]
            once = _counted(jax.jit(jaxpr_as_fun(body)).lower(*body.in_avals)) + inner
            inner += (equation.params["length"] - 1) * once
        total += inner
    return total
