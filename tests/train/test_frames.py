"""Moving pictures: a walk's latents are normal at every place and come back; a denoising ends with the samples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.samplers import image_keys, noise
from jgen.samplers.common import walking
from jgen.sharding import make_mesh
from jgen.train.draw import draw
from jgen.train.frames import denoising, latent_walk
from jgen.train.stage import first_batch
from tests import tiny


def test_a_walk_passes_its_draws_and_comes_back():
    keys = image_keys(0, 2)

    def at(place):
        with walking(jnp.full((2,), place), 3):
            return np.asarray(noise(keys, (2000,)))

    stops = [np.asarray(noise(jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys), (2000,))) for i in range(3)]
    for i in range(3):
        np.testing.assert_allclose(at(float(i)), stops[i], atol=1e-5)
    np.testing.assert_allclose(at(3.0), stops[0], atol=1e-5)
    between = at(0.3)
    assert abs(between.std() - 1) < 0.05
    assert np.corrcoef(between[0], stops[0][0])[0, 1] > 0.8
    np.testing.assert_array_equal(noise(keys, (5,)), noise(keys, (5,)))


@pytest.mark.slow
def test_denoising_ends_with_the_samples_and_a_walk_moves():
    stage, mesh = tiny.stage(), make_mesh()
    state = stage.create(jax.random.key(0), first_batch(stage, stage.open_source()))
    how = dict(num=2, seed=3)
    frames = denoising(stage, state.params, state.extra, mesh, **how)
    assert frames.shape == (5, 2, 8, 8, 1)  # four steps, and the samples
    np.testing.assert_allclose(frames[-1], draw(stage, state.params, state.extra, mesh, **how), atol=1e-5)
    walk = latent_walk(stage, state.params, state.extra, mesh, frames=4, stops=2, **how)
    assert walk.shape == (4, 2, 8, 8, 1)
    assert np.std(walk, axis=0).max() > 0
    for bad in ({"frames": 1}, {"stops": 1}):
        with pytest.raises(UserError, match="must be at least 2"):
            latent_walk(stage, state.params, state.extra, mesh, **bad, **how)
