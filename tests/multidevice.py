"""Run by test_multidevice.py in processes of its own: a few steps and samples of a tiny model on some devices.

python multidevice.py OUT.npz FSDP [COORDINATOR NUM ID]; the number of devices comes from XLA_FLAGS.
"""

import sys


def main(out, fsdp, *distributed):
    import jax

    if distributed:
        jax.distributed.initialize(distributed[0], int(distributed[1]), int(distributed[2]))

    import numpy as np

    from jgen.config import MeshConfig
    from jgen.data import Pipeline
    from jgen.recipes.evaluation.agreement import agreement
    from jgen.sharding import batch_sharding, make_mesh
    from jgen.train.compiled import compile_stage
    from jgen.train.draw import draw
    from jgen.train.stage import first_batch
    from tests import tiny

    stage = tiny.stage(channels=32, data__flip=True, data__dequantize=True)
    mesh = make_mesh(MeshConfig(fsdp=int(fsdp)))
    compiled = compile_stage(stage, mesh)
    state, key = compiled.create(jax.random.key(0), first_batch(stage, stage.open_source()), None), jax.random.key(0)
    batches, losses = Pipeline(stage.open_source(), stage.data, 0, mesh).batches(), []
    noise = jax.jit(lambda: jax.random.normal(key, (stage.data.batch_size, 8, 8, 1)))()
    for _ in range(4):
        batch = next(batches)
        state, metrics = compiled.step(state, key, batch)
        losses.append(float(metrics["loss"]))
    split = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    images = draw(stage, state.averaged, state.extra, mesh, num=12, batch=8)
    agreed = agreement(stage.data, "label", lambda params, extra, keys, label: jax.vmap(as_noise)(keys))
    agrees = list(agreed(None, None, key, batches, 3).values())
    book, covariance = codebook(batch_sharding(mesh)), moments(batch_sharding(mesh))
    if jax.process_index() == 0:
        found = dict(losses=losses, images=images, noise=noise, codebook=book, covariance=covariance, agrees=agrees)
        np.savez(out, split=split, devices=mesh.size, **found)


def as_noise(key):
    import jax

    return jax.random.normal(key, (8, 8, 1))


def moments(sharding):
    """The covariance of features that come in batches that lie on all devices."""
    import jax
    import numpy as np

    from jgen.metrics import frechet

    found, join = frechet.no_moments(5), jax.jit(frechet.add)
    for i in range(3):
        x = np.random.default_rng(i).normal(size=(16, 5)).astype(np.float32)
        found = join(found, jax.make_array_from_callback(x.shape, sharding, lambda rows, x=x: x[rows]))
    return found.covariance()


def codebook(sharding):
    """A codebook after three updates by inputs that lie on all devices."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jgen.models.vqvae import quantize
    from jgen.objectives import vqvae

    @jax.jit
    def follow(book, z):
        q = quantize(z, book.vectors)
        return vqvae.revive(vqvae.update(book, q), q, jnp.arange(len(book.size)))

    book = vqvae.new_codebook(jax.random.key(0), 12, 3)
    for i in range(3):
        z = np.random.default_rng(i).normal(size=(16, 4, 3)).astype(np.float32)
        book = follow(book, jax.make_array_from_callback(z.shape, sharding, lambda rows, z=z: z[rows]))
    return np.asarray(book.vectors)


if __name__ == "__main__":
    main(*sys.argv[1:])
