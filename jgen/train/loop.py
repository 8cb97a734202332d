"""`fit`, the only loop in Python: it feeds compiled steps, and everything it writes survives a kill at any moment."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jgen import memory
from jgen.config import ranges
from jgen.data import Pipeline
from jgen.errors import UserError, in_stage
from jgen.sharding import check_batch
from jgen.train.checkpoint import Checkpoints
from jgen.train.compiled import compile_stage
from jgen.train.draw import check_sampling
from jgen.train.grids import draw_curves, grid_names, held_out_source, save_grids
from jgen.train.log import Log
from jgen.train.over_training import save_over_training
from jgen.train.stage import Stage, first_batch
from jgen.train.step import TrainState
from jgen.train.stop import Stop, locked
from jgen.train.watch import Watch
from jgen.types import Extra, Params

HELD_OUT = 4
"""Batches of held-out images that rank a checkpoint."""


@dataclasses.dataclass(frozen=True)
class Fitted:
    """The result of `fit`."""

    state: TrainState
    step: int
    finished: bool
    """False where it was stopped before the last step."""
    seconds_a_step: float


def check(stage: Stage, mesh: Mesh) -> None:
    """Raises UserError for settings of a stage that can't work."""
    t = stage.train
    if t.steps < 1:  # which may be another option's of a stage with steps of its own
        raise UserError(f"train.steps={t.steps}: must be at least 1, in stage {stage.name}")
    ranges.check(t, "train.")
    with in_stage(stage.name):
        check_batch(stage.data.batch_size, mesh, t.accumulate)
    if t.dtype != "float32" and "dtype" not in stage.supports:
        raise UserError(f"train.dtype={t.dtype}: {stage.name} takes only float32")
    check_sampling(stage, stage.options)  # what can't work is refused before training, not after
    for name in ("steps", "save_every", "sample_every"):
        value = getattr(t, name)
        if value % t.scan:
            raise UserError(f"train.{name}={value}: must be a multiple of train.scan={t.scan}, in stage {stage.name}")


def fit(
    stage: Stage,
    folder: Path,
    mesh: Mesh,
    earlier: tuple[Params, Extra] | None = None,
    pipeline: Pipeline | None = None,
    lock: bool = True,
) -> Fitted:
    """Trains a stage in a folder, from its newest good checkpoint if it has one; saves, logs and draws as it goes.

    A resumed run equals an uninterrupted one bit for bit. SIGTERM or Ctrl-C saves and returns early. lock: False where the
    caller holds the folder by `locked`. Raises UserError
    for settings that can't work, a folder in use, losses that stay non-finite, or a checkpoint that can't be written.
    """
    check(stage, mesh)
    config, main = stage.train, jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        if main and lock:
            stack.enter_context(locked(folder))
        pipeline = pipeline or Pipeline(stage.open_source(), stage.data, config.seed, mesh)
        compiled = compile_stage(stage, mesh, earlier)
        held_out = _held_out(stage, mesh)
        checkpoints = stack.enter_context(Checkpoints(folder / "checkpoints", config.keep_last, config.keep_best))
        found = checkpoints.restore(compiled.shapes, compiled.shardings)
        key = jax.random.key(config.seed)
        step, state = found or (
            0,
            compiled.create(jax.random.fold_in(key, 2**31), first_batch(stage, pipeline.source), earlier),
        )
        log = stack.enter_context(Log(folder, step, config.steps, stage.data.batch_size, main, config.wandb))
        if found:
            more = "" if step < config.steps else ": it is finished, and a larger --train.steps trains longer"
            log.say(f"{folder}: goes on from step {step} of {config.steps}{more}")
        stop = stack.enter_context(Stop())
        watch = Watch(stage, log, pipeline)
        batches, stopping = pipeline.batches(step, config.scan if config.scan > 1 else 0), False
        begin, drawn = step, False
        while step < config.steps and not stopping:
            state, metrics = compiled.step(state, key, next(batches))
            if step == begin:  # what compiled it is over
                memory.fill()
            step += config.scan
            watch.see(step, metrics)
            stopping = stop.now()
            if step % config.save_every == 0 or step == config.steps or stopping:
                watch.catch_up()
                _save(checkpoints, folder, step, state, held_out, log)
            if (config.sample_every and step % config.sample_every == 0) or step == config.steps:
                watch.catch_up()  # a tracker takes records in the order of their steps
                save_grids(stage, state, mesh, folder, step, log)
                if not drawn:
                    memory.fill()
                drawn = True
        if found and begin == config.steps and not all((folder / f"{name}.png").exists() for name in grid_names(stage)):
            save_grids(stage, state, mesh, folder, step, log)  # the run was killed after its last save
        _wait(checkpoints, folder)
        watch.finish(whole=begin == 0 and step >= config.steps)
        if pipeline.skipped:
            log.say(f"data: passed over {pipeline.skipped} files that can't be read")
        if main:
            draw_curves(folder)
            save_over_training(folder, stage.data.shape)
        return Fitted(state, step, step >= config.steps, log.seconds)


def _held_out(stage: Stage, mesh: Mesh) -> Callable[[TrainState], float | None]:
    """state -> its mean validation loss on the same held-out images with the same noise every time."""
    if stage.validate is None:
        return lambda state: None
    source, data = held_out_source(stage, stage.data.batch_size, mesh)
    size = data.batch_size
    count = min(HELD_OUT, len(source) // size)
    validate = stage.validate
    loss = jax.jit(lambda params, extra, key, batch: validate(params, extra, key, batch)[0])

    def mean(state: TrainState) -> float:
        batches = Pipeline(source, data, 0, mesh).batches()
        losses = [loss(state.averaged, state.extra, jax.random.key(i), next(batches)) for i in range(count)]
        return float(np.mean([np.asarray(x) for x in losses]))

    return mean


def _save(checkpoints: Checkpoints, folder: Path, step: int, state: TrainState, held_out: Callable[..., Any], log: Log) -> None:
    loss = held_out(state)
    if loss is not None:
        log.record(step, {"val_loss": loss})
    try:
        checkpoints.save(step, state, loss if loss is not None and np.isfinite(loss) else None)
    except UserError:
        raise
    except Exception as error:
        raise _unwritten(folder, checkpoints, error) from error


def _wait(checkpoints: Checkpoints, folder: Path) -> None:
    try:
        checkpoints.wait()
    except Exception as error:
        raise _unwritten(folder, checkpoints, error) from error


def _unwritten(folder: Path, checkpoints: Checkpoints, error: Exception) -> UserError:
    try:
        last = f"the last good one is step {checkpoints.steps()[-1]}"
    except Exception:  # none, or the folder itself can't be read
        last = "there is none before it"
    reason = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    return UserError(f"{folder}: a checkpoint could not be written, {last} ({reason})")
