"""The record of every tiny experiment before the code was rebuilt, in guards.json, and the comparison with it."""

import json

import jax
import numpy as np

from jgen.data import Pipeline
from jgen.train.draw import draw
from tests import tiny

GUARDS = json.loads((tiny.ROOT / "tests" / "guards.json").read_text())
"""{experiment: {"stages": {stage: {"metrics": first step's, "samples": some pixels}}, "config": its config.json}}."""


def guarded(name, stage, compiled, state, mesh):
    """(Weights, extra) of a stage three steps after its first state, of which the first step and samples are as before.

    Close rather than equal, since other processors round otherwise.
    """
    batches = Pipeline(stage.open_source(), stage.data, 0, mesh).batches()
    guard = GUARDS[name]["stages"][stage.name]
    for step in range(3):
        state, metrics = compiled.step(state, jax.random.key(0), next(batches))
        if step == 0:
            for key, value in guard["metrics"].items():
                np.testing.assert_allclose(float(metrics[key]), value, rtol=1e-3, atol=1e-5, err_msg=key)
    if stage.sample is not None:
        images = draw(stage, state.averaged, state.extra, mesh, num=4, seed=5, batch=4)
        pixels = images.reshape(-1)[:: max(1, images.size // 5)][:5]
        np.testing.assert_allclose(pixels, guard["samples"], atol=0.05)
    return state.averaged, state.extra
