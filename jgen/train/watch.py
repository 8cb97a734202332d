"""Reads a step's metrics for the loop: records them, and complains of values that are not finite."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.data import Pipeline
from jgen.errors import UserError
from jgen.train.log import Log
from jgen.train.rates import learning_rates
from jgen.train.stage import Stage, state_shapes
from jgen.train.step import TOO_LARGE, Phase, nonfinite_name
from jgen.types import Metrics


class Watch:
    """Reads metrics a step behind the devices, so that reading never makes them wait; records them, watches for NaN."""

    def __init__(self, stage: Stage, log: Log, pipeline: Pipeline):
        self.stage, self.log, self.pipeline = stage, log, pipeline
        self.rates = learning_rates(stage.optimizers, stage.phases, stage.train.steps) if log.active else {}
        self.seen, self.bad, self.too_large = 0, 0, 0  # steps; those not applied in a row; those too large in all
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

    def finish(self, whole: bool) -> None:
        """Handles what is pending at the end. Raises UserError where none of the steps of a whole training was applied.

        whole: the steps seen are all of the stage's, neither resumed nor stopped.
        """
        self.catch_up()
        if self.too_large:
            self.log.say(f"{self.too_large} of {self.seen} steps were not applied, because their gradients were too large")
        if whole and self.seen and self.bad == self.seen:
            advice = "raise skip_threshold (0 for none), or " if self.too_large else ""
            raise UserError(
                f"none of the {self.seen} steps was applied, so nothing was learned: {advice}lower the learning rate"
            )

    def _handle(self, last: int, metrics: Metrics) -> None:
        values = {k: np.atleast_1d(np.asarray(v)) for k, v in jax.device_get(dict(metrics)).items()}
        count = len(next(iter(values.values())))
        for i in range(count):
            step = last - count + 1 + i
            row = {k: float(v[i]) for k, v in values.items()}
            codes = {k: int(row.pop(k)) for k in list(row) if k.endswith("nonfinite")}
            bad = {k: code for k, code in codes.items() if code}
            self.seen, self.bad = self.seen + 1, self.bad + 1 if bad else 0
            if bad:
                self._complain(step, *next(iter(bad.items())))
            if step % self.stage.train.log_every == 0 or step == self.stage.train.steps:
                rates = {k: float(v[step - 1]) for k, v in self.rates.items()}
                skipped = {"skipped": float(self.too_large)} if self.too_large else {}
                self.log.record(step, {**row, **{k: float(v) for k, v in bad.items()}, **skipped, **rates})
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
