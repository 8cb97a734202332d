"""Run by test_experiments.py in a process of its own: steps and images of tiny experiments on one device, and on eight.

python multidevice_experiments.py OUT.npz EXPERIMENT...; both meshes are of the eight devices that XLA_FLAGS makes. The images
are drawn four at a time on one device and eight at a time on eight, so that one that depends on its batch is found as well.
"""

import sys

STEPS = 5
"""ADA adapts after four."""


def main(out, *names):
    import numpy as np

    from jgen.config import MeshConfig
    from jgen.sharding import make_mesh
    from tests import tiny

    meshes = {"one": (make_mesh(MeshConfig(devices=1)), 4), "eight": (make_mesh(), 8)}
    assert {key: mesh.size for key, (mesh, _) in meshes.items()} == {"one": 1, "eight": 8}
    found = {}
    for name in names:
        for stage in tiny.module(name).build(tiny.parsed(name)).stages:
            state = None
            for key, (mesh, batch) in meshes.items():
                made, state = trained(stage, mesh, batch, state)
                for part, value in made.items():
                    found[f"{name}/{stage.name}/{part}/{key}"] = np.asarray(value)
    np.savez(out, **found)


def trained(stage, mesh, batch, begun=None):
    """({losses, extra, images} after some steps of a stage, the state that they began from)."""
    import jax
    import numpy as np

    from jgen.data import Pipeline
    from jgen.train.compiled import compile_stage
    from jgen.train.draw import draw
    from jgen.train.stage import first_batch

    compiled, source = compile_stage(stage, mesh), stage.open_source()
    begun = begun or jax.device_get(compiled.create(jax.random.key(1), first_batch(stage, source), None))
    state, losses = jax.device_put(begun, compiled.shardings), []
    batches = Pipeline(source, stage.data, 0, mesh).batches()
    for _ in range(STEPS):
        state, metrics = compiled.step(state, jax.random.key(0), next(batches))
        losses.append([value for key, value in sorted(metrics.items()) if key.endswith("loss")])
    numbers = [np.ravel(x) for x in jax.tree.leaves(state.extra) if np.issubdtype(x.dtype, np.floating)]
    made = {"losses": losses, "extra": np.concatenate([*numbers, np.zeros(0)])}
    if stage.sample is not None:
        made["images"] = draw(stage, state.averaged, state.extra, mesh, num=8, batch=batch)
    return made, begun


if __name__ == "__main__":
    main(*sys.argv[1:])
