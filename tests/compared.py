"""Run by test_experiments.py in a process of its own: a tiny experiment on one device, on eight, and on one in bfloat16.

python compared.py OUT.npz EXPERIMENT; both meshes are of the eight devices that XLA_FLAGS makes, and every stage begins from
the same state each time. The images are drawn four at a time on one device and eight at a time on eight, so that one that
depends on its batch is found as well.
"""

import sys
from dataclasses import replace

STEPS = 5
"""ADA adapts after four."""
MOVED = {"stylegan": 0.1}
"""The deviation of what is added to the first weights: StyleGAN begins from a constant of ones, whose instance norm makes of
its first steps, too small for bfloat16, all that the generator shows."""


def main(out, name):
    import numpy as np

    from jgen.config import MeshConfig
    from jgen.sharding import make_mesh
    from tests import tiny

    config, build = tiny.parsed(name), tiny.module(name).build
    half = build(replace(config, train=replace(config.train, dtype="bfloat16"))).stages
    one, eight, found = make_mesh(MeshConfig(devices=1)), make_mesh(), {}
    assert (one.size, eight.size) == (1, 8)
    for i, stage in enumerate(build(config).stages):
        begun = first_state(stage, one, MOVED.get(name, 0))
        made = {"one": trained(stage, one, begun, 4), "eight": trained(stage, eight, begun, 8)}
        if "dtype" in stage.supports:
            made["bfloat16"] = trained(half[i], one, begun)
        for how, parts in made.items():
            found |= {f"{stage.name}/{part}/{how}": np.asarray(value) for part, value in parts.items()}
    np.savez(out, **found)


def first_state(stage, mesh, moved):
    import jax

    from jgen.train.compiled import compile_stage
    from jgen.train.stage import first_batch
    from tests import tiny

    state = jax.device_get(compile_stage(stage, mesh).create(jax.random.key(1), first_batch(stage, stage.open_source()), None))
    return state.replace(params=tiny.moved(state.params, moved)) if moved else state


def trained(stage, mesh, begun, batch=0):
    """{losses, extra, and images drawn `batch` at a time} after some steps of a stage from a state."""
    import jax
    import numpy as np

    from jgen.data import Pipeline
    from jgen.train.compiled import compile_stage
    from jgen.train.draw import draw

    compiled, losses = compile_stage(stage, mesh), []
    state, batches = jax.device_put(begun, compiled.shardings), Pipeline(stage.open_source(), stage.data, 0, mesh).batches()
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
