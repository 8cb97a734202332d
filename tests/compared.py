"""Run by test_experiments.py in a process of its own: a tiny experiment on one device, on eight, and on one in bfloat16.

python compared.py OUT.npz EXPERIMENT; both meshes are of the eight devices that XLA_FLAGS makes, and every stage begins from
the same state each time. The images are drawn four at a time on one device and eight at a time on eight, so that one that
depends on its batch is found as well. On one device a state is saved and restored too, what the stage evaluates is kept, and
experiments with a record of earlier times are compared with it: most of the time is compilation, and all of these run one
program.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np

from jgen.config import MeshConfig
from jgen.data import Pipeline
from jgen.sharding import make_mesh
from jgen.train.checkpoint import Checkpoints
from jgen.train.compiled import compile_stage
from jgen.train.draw import draw
from jgen.train.stage import first_batch
from tests import tiny
from tests.guarded import GUARDS, guarded

STEPS = 5
"""ADA adapts after four."""
GROWN = ("cascade", "progan", "stylegan", "stylegan_xl")
"""Those whose stages are one code at several sizes: the last, the largest, is compared on eight devices and in bfloat16."""
MOVED = {"stylegan": 0.1}
"""The deviation of what is added to the first weights: StyleGAN begins from a constant of ones, whose instance norm makes of
its first steps, too small for bfloat16, all that the generator shows."""


def main(out, name):
    config, build = tiny.parsed(name), tiny.module(name).build
    half = build(replace(config, train=replace(config.train, dtype="bfloat16"))).stages
    one, eight, found = make_mesh(MeshConfig(devices=1)), make_mesh(), {}
    assert (one.size, eight.size) == (1, 8)
    stages, earlier = build(config).stages, None
    for i, stage in enumerate(stages):
        if i < len(stages) - 1 and stage.name in tiny.EXPERIMENTS:
            continue  # such as StyleGAN2 under an inversion, which has a process of its own
        compiled = compile_stage(stage, one, earlier)
        first = jax.device_get(compiled.create(jax.random.key(1), first_batch(stage, stage.open_source()), earlier))
        if name in GUARDS:
            earlier = guarded(name, stage, compiled, jax.device_put(first, compiled.shardings), one)
        moved = MOVED.get(name, 0)
        begun = first.replace(params=tiny.moved(first.params, moved)) if moved else first
        with tempfile.TemporaryDirectory() as folder:
            found[f"{stage.name}/unequal"] = resumed(stage, compiled, begun, one, Path(folder))
        if stage.evaluate is not None:
            batches = Pipeline(stage.open_source(), stage.data, 0, one).batches()
            values = stage.evaluate(begun.params, begun.extra, jax.random.key(2), batches, 2)
            found[f"{stage.name}/evaluated"] = np.concatenate([np.ravel(value) for value in values.values()])
        if name in GROWN and stage is not stages[-1]:
            continue
        made = {"one": trained(stage, compiled, one, begun, 4)}
        made["eight"] = trained(stage, compile_stage(stage, eight), eight, begun, 8)
        if "dtype" in stage.supports:
            made["bfloat16"] = trained(half[i], compile_stage(half[i], one), one, begun)
        for how, parts in made.items():
            found |= {f"{stage.name}/{part}/{how}": np.asarray(value) for part, value in parts.items()}
    np.savez(out, **found)


def resumed(stage, compiled, begun, mesh, folder):
    """How many arrays differ after a step from a state and one from the same state, saved and restored."""
    batches, key = Pipeline(stage.open_source(), stage.data, 0, mesh).batches(), jax.random.key(0)
    first, second = next(batches), next(batches)
    state, metrics = compiled.step(jax.device_put(begun, compiled.shardings), key, first)
    assert all(np.isfinite(value) for value in jax.tree.leaves(metrics))
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.wait()
        step, restored = checkpoints.restore(compiled.shapes, compiled.shardings)
    assert step == 1
    ends = [jax.tree.leaves(jax.device_get(compiled.step(each, key, second))) for each in (state, restored)]
    return sum(not np.array_equal(a, b, equal_nan=True) for a, b in zip(*ends, strict=True))


def trained(stage, compiled, mesh, begun, batch=0):
    """{losses, extra, and images drawn `batch` at a time} after some steps of a stage from a state."""
    state, losses = jax.device_put(begun, compiled.shardings), []
    batches = Pipeline(stage.open_source(), stage.data, 0, mesh).batches()
    for _ in range(STEPS):
        state, metrics = compiled.step(state, jax.random.key(0), next(batches))
        losses.append([value for key, value in sorted(metrics.items()) if key.endswith("loss")])
    numbers = [np.ravel(x) for x in jax.tree.leaves(state.extra) if np.issubdtype(x.dtype, np.floating)]
    made = {"losses": losses, "extra": np.concatenate([*numbers, np.zeros(0)])}
    if batch and stage.sample is not None:
        made["images"] = draw(stage, state.averaged, state.extra, mesh, num=8, batch=batch)
    return made


if __name__ == "__main__":
    main(*sys.argv[1:])
