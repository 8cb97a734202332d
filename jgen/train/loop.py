"""`fit`, the only loop in Python: it feeds compiled steps, and everything it writes survives a kill at any moment."""

import contextlib
import dataclasses
import fcntl
import functools
import itertools
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from jgen import memory, pictures
from jgen.config import DataConfig, ranges
from jgen.data import Pipeline, Source, open_source
from jgen.errors import UserError, in_stage
from jgen.files import check_no_links
from jgen.sharding import batch_sharding, check_batch, jit_once, jit_step, replicated, rounded_down, state_shardings
from jgen.train.checkpoint import Checkpoints
from jgen.train.draw import check_sampling, draw
from jgen.train.log import Log, read
from jgen.train.over_training import save_over_training
from jgen.train.rates import learning_rates
from jgen.train.remat import phases
from jgen.train.stage import Picture, Stage, first_batch, state_shapes
from jgen.train.step import TOO_LARGE, Phase, Step, TrainState, make_step, nonfinite_name, scan_steps
from jgen.types import Batch, Extra, Key, Metrics, Params

PREVIEW = 64
"""Images of a sample grid."""
DISPATCHES = itertools.count(1)
"""Numbers the dispatches of a process over all its stages: several processes agree on one of them to stop after."""
LABELS = ("steps", "eta", "label", "guidance", "psi", "temperature", "deviation", "top_k")
"""Options of sampling that the caption of a picture names."""
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


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder against other processes; the lock goes with the process, however it ends.

    Raises UserError where another one holds it, and for symbolic links below it, which are never written through.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_no_links(folder)
    number = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise UserError(f"{folder}: another process is training in this folder") from error
    else:
        yield
    finally:
        os.close(number)


class Stop:
    """Remembers a SIGTERM or Ctrl-C until the loop can act on it. Use as a context manager.

    Of several processes, JAX's runtime takes the SIGTERM of any and agrees with the others on a step to stop at.
    """

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "Stop":
        self.before = {}
        if threading.current_thread() is threading.main_thread():
            numbers = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
            for number in numbers:
                self.before[number] = signal.signal(number, self._request)
        return self

    def _request(self, number: int, _: Any) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def __exit__(self, *_: Any) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def now(self) -> bool:
        """Whether to stop after this dispatch, called after each; all processes of a run answer alike."""
        if jax.process_count() == 1:
            return self.requested
        return bool(multihost_utils.reached_preemption_sync_point(next(DISPATCHES)))


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
            log.say(f"{folder}: goes on from step {step} of {config.steps}")
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
                _preview(stage, state, mesh, folder, step, log)
                if not drawn:
                    memory.fill()
                drawn = True
        if found and begin == config.steps and not all((folder / f"{name}.png").exists() for name in _grids(stage)):
            _preview(stage, state, mesh, folder, step, log)  # the run was killed after its last save
        watch.catch_up()
        _wait(checkpoints, folder)
        if pipeline.skipped:
            log.say(f"data: passed over {pipeline.skipped} files that can't be read")
        if main:
            _draw_curves(folder)
            save_over_training(folder, stage.data.shape)
        return Fitted(state, step, step >= config.steps, log.seconds)


class Watch:
    """Reads metrics a step behind the devices, so that reading never makes them wait; records them, watches for NaN."""

    def __init__(self, stage: Stage, log: Log, pipeline: Pipeline):
        self.stage, self.log, self.pipeline = stage, log, pipeline
        self.rates = learning_rates(stage.optimizers, stage.phases, stage.train.steps) if log.active else {}
        self.bad, self.too_large = 0, 0  # in a row; in all
        self.pending: tuple[int, Metrics] | None = None

    def see(self, step: int, metrics: Metrics) -> None:
        """Takes the metrics of the dispatch that ended at `step`, and handles those of the one before."""
        before, self.pending = self.pending, (step, metrics)
        if before:
            self._handle(*before)

    def catch_up(self) -> None:
        """Handles what is pending."""
        if self.pending:
            self._handle(*self.pending)
        self.pending = None

    def _handle(self, last: int, metrics: Metrics) -> None:
        values = {k: np.atleast_1d(np.asarray(v)) for k, v in jax.device_get(dict(metrics)).items()}
        count = len(next(iter(values.values())))
        for i in range(count):
            step = last - count + 1 + i
            row = {k: float(v[i]) for k, v in values.items()}
            codes = {k: int(row.pop(k)) for k in list(row) if k.endswith("nonfinite")}
            bad = {k: code for k, code in codes.items() if code}
            self.bad = self.bad + 1 if bad else 0
            if bad:
                self._complain(step, *next(iter(bad.items())))
            if step % self.stage.train.log_every == 0 or step == self.stage.train.steps:
                rates = {k: float(v[step - 1]) for k, v in self.rates.items()}
                self.log.record(step, {**row, **{k: float(v) for k, v in bad.items()}, **rates})
        self.log.progress(last, next((v[-1] for k, v in values.items() if k.endswith("loss")), float("nan")))

    def _complain(self, step: int, metric: str, code: int) -> None:
        name = metric.removesuffix("nonfinite").rstrip("/")
        phase = next((p for p in self.stage.phases if name in (p.name or p.player, "")), self.stage.phases[0])
        if code == TOO_LARGE:
            return self._complain_of_size(step, phase)
        culprit = self._culprit(step) or nonfinite_name(code, self._shapes(phase.player))
        self.log.say(f"step {step}: {culprit} is not finite; the step was not applied ({self.bad} in a row)")
        if self.bad >= self.stage.train.max_bad_steps:
            raise UserError(
                f"{culprit} was not finite for {self.bad} steps in a row, up to step {step}: lower the learning rate, "
                "clip gradients, compute in float32, or look at the data; the last checkpoint is from before"
            )

    def _complain_of_size(self, step: int, phase: Phase) -> None:
        self.too_large += 1
        what = f"the gradient's norm was at least {phase.skip_norm:g}"
        self.log.say(f"step {step}: {what}; the step was not applied ({self.bad} in a row, {self.too_large} in all)")
        if self.bad >= self.stage.train.max_bad_steps:
            raise UserError(
                f"{what} for {self.bad} steps in a row, up to step {step}: raise skip_threshold (0 for none), or lower the "
                "learning rate; another width, batch or set of images has gradients of another size"
            )

    def _culprit(self, step: int) -> str:
        """Names the bad input, if there is one: the batch of the step, which can be made again."""
        batch = next(self.pipeline.batches(step - 1))
        for name, value in batch.items():
            if jnp.issubdtype(value.dtype, jnp.floating) and not bool(jnp.all(jnp.isfinite(value))):
                return f"batch entry {name!r}"
        return ""

    def _shapes(self, player: str) -> Any:
        return state_shapes(self.stage).params[player]


def _held_out_source(stage: Stage, most: int, mesh: Mesh) -> tuple[Source, DataConfig]:
    """Images that were not trained on, in batches of at most so many; of a set without a test split, the training images."""
    try:
        source = open_source(dataclasses.replace(stage.data, split="test", limit=0), stage.train.seed)
    except UserError:
        source = open_source(stage.data, stage.train.seed)
    size = rounded_down(min(most, len(source)), mesh)
    return source, dataclasses.replace(stage.data, batch_size=size, flip=False)


def _held_out(stage: Stage, mesh: Mesh) -> Callable[[TrainState], float | None]:
    """state -> its mean validation loss on the same held-out images with the same noise every time."""
    if stage.validate is None:
        return lambda state: None
    source, data = _held_out_source(stage, stage.data.batch_size, mesh)
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


def _grids(stage: Stage) -> list[str]:
    """The names of a stage's pictures."""
    return [*(["samples"] if stage.sample is not None else []), *stage.pictures]


def _draw_curves(folder: Path) -> None:
    """Writes loss.png: the loss, or every metric of a stage that has no metric of this name."""
    if records := read(folder / "metrics.jsonl"):
        names = ["loss"] if any("loss" in record for record in records) else None
        pictures.save(pictures.curves(records, names), folder / "loss.png")


def _preview(stage: Stage, state: TrainState, mesh: Mesh, folder: Path, step: int, log: Log) -> None:
    """Writes the grids of a step: samples, and the stage's other pictures; of the last step, as NAME.png too."""
    grids: dict[str, np.ndarray] = {}
    if stage.sample is not None:
        seed = stage.train.seed
        grids["samples"] = draw(stage, state.averaged, state.extra, mesh, num=PREVIEW, seed=seed, batch=PREVIEW)
    for name in stage.pictures:
        grids[name] = stage_picture(stage, name, state.averaged, state.extra, mesh)
    if jax.process_index():
        return
    for name, images in grids.items():
        picture = pictures.grid(images)
        log.picture(step, name, picture)
        about = (
            f"{shows(stage, name)}: {len(images)} images, step {step:,}, seed {stage.train.seed if name == 'samples' else 0}"
        )
        pictures.save(picture, folder / "samples" / f"{step:08d}{'' if name == 'samples' else '-' + name}.png")
        if step == stage.train.steps:
            pictures.save(picture, folder / f"{name}.png", about)


def shows(stage: Stage, name: str, options: Any = None) -> str:
    """A sentence on what a picture shows: samples with the options that they were drawn with, others as they are described."""
    if name == "samples":
        chosen = stage.options if options is None else options
        own = {leaf.name: ranges.shown(leaf.value) for leaf in ranges.leaves(chosen)} if chosen is not None else {}
        solver = getattr(chosen, "solver", None)
        first = [f"sampler={solver.sampler}"] if solver is not None else []
        listed = [*first, *(f"{label}={own[label]}" for label in LABELS if label in own)]
        return f"Samples ({', '.join(listed)})" if listed else "Samples"
    text = ({**stage.pictures, **stage.on_request}[name].__doc__ or "").split(". ")[0].split("\n")[0].strip().rstrip(".")
    return text or name.replace("_", " ")


def stage_picture(stage: Stage, name: str, params: Params, extra: Extra, mesh: Mesh, seed: int = 0) -> np.ndarray:
    """The images [N, H, W, C] of one of a stage's pictures, made of held-out images and the key of `seed`."""
    source, data = _held_out_source(stage, PREVIEW, mesh)
    batch = next(Pipeline(source, data, 0, mesh).batches())
    make = {**stage.pictures, **stage.on_request}[name]
    return np.asarray(_picture(make, mesh)(params, stage.extra_for(extra, stage.options, mesh), jax.random.key(seed), batch))


@functools.lru_cache(16)
def _picture(make: Picture, mesh: Mesh) -> Callable[..., Any]:
    return jax.jit(make, out_shardings=replicated(mesh))
