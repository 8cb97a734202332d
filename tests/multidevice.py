"""Run by test_multidevice.py in processes of its own: a few steps and samples of a tiny model on some devices.

python multidevice.py OUT.npz FSDP [COORDINATOR NUM ID]; the number of devices comes from XLA_FLAGS.
"""

import sys

import jax

out, fsdp = sys.argv[1], int(sys.argv[2])
if len(sys.argv) > 3:
    jax.distributed.initialize(sys.argv[3], int(sys.argv[4]), int(sys.argv[5]))

import numpy as np  # noqa: E402

from jgen.config import MeshConfig  # noqa: E402
from jgen.data import Pipeline, open_source  # noqa: E402
from jgen.experiment import draw  # noqa: E402
from jgen.train.loop import compile_stage  # noqa: E402
from jgen.train.sharding import make_mesh  # noqa: E402
from tests import tiny  # noqa: E402

stage = tiny.stage(channels=32, train__accumulate=1, data__flip=True, data__dequantize=True)
mesh = make_mesh(MeshConfig(fsdp=fsdp))
compiled = compile_stage(stage, mesh)
state, key = compiled.create(jax.random.key(0), None), jax.random.key(0)
batches, losses = Pipeline(open_source(stage.data), stage.data, 0, mesh).batches(), []
noise = jax.jit(lambda: jax.random.normal(key, (stage.data.batch_size, 8, 8, 1)))()
for _ in range(4):
    batch = next(batches)
    state, metrics = compiled.step(state, key, batch)
    losses.append(float(metrics["loss"]))
split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
images = draw(stage, state.averaged, state.extra, mesh, num=12, batch=8)
if jax.process_index() == 0:
    np.savez(out, losses=losses, images=images, noise=noise, split=split, devices=mesh.size)
