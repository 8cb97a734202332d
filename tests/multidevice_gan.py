"""Run by test_gan.py in processes of its own: steps of a tiny StyleGAN2 with every phase. python multidevice_gan.py OUT.npz"""

import sys


def main(out):
    import jax
    import numpy as np

    from experiments import stylegan2
    from jgen.data import Pipeline
    from jgen.sharding import make_mesh
    from jgen.train.compiled import compile_stage
    from jgen.train.draw import draw
    from jgen.train.stage import first_batch
    from tests import tiny

    (stage,), mesh = stylegan2.build(tiny.parsed("stylegan2")).stages, make_mesh()
    compiled = compile_stage(stage, mesh)
    state, key = compiled.create(jax.random.key(0), first_batch(stage, stage.open_source()), None), jax.random.key(0)
    batches, losses = Pipeline(stage.open_source(), stage.data, 0, mesh).batches(), []
    for _ in range(5):
        state, metrics = compiled.step(state, key, next(batches))
        losses.append([float(metrics[k]) for k in ("g/loss", "d/loss")])
    images = draw(stage, state.averaged, state.extra, mesh, num=8, batch=8)
    extra = {k: np.asarray(state.extra[k]) for k in ("w_avg", "pl_mean")}
    np.savez(out, losses=losses, images=images, p=np.asarray(state.extra["ada"]["p"]), devices=mesh.size, **extra)


if __name__ == "__main__":
    main(*sys.argv[1:])
