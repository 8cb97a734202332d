"""Path length that begins late: nothing before, and StyleGAN2's penalty of every step from then on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.objectives.adversarial import GAN
from jgen.objectives.style_losses import late_path_loss, path_loss, path_state

LINEAR = GAN(
    init=lambda key, batch: ({}, {}),
    latents=lambda keys, condition: jnp.zeros((len(keys), 3)),
    train_latents=lambda key, images, rows: jax.random.normal(key, (rows, 3)),
    generate=lambda *given, train: (given[2], {}),
    discriminate=lambda *given, train: (given[2], {}),
    map=lambda params, extra, z, condition: (z[:, None], {}),
    synthesize=lambda params, extra, ws, z: (ws[:, 0] @ params["g"]).reshape(-1, 2, 2, 1),
    classes=0,
)
PARAMS = {"g": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32)}
BATCH = {"image": jnp.zeros((4, 2, 2, 1))}


@pytest.mark.slow
def test_it_begins_after_so_many_images():
    loss = jax.jit(jax.value_and_grad(late_path_loss(LINEAR, 2.0, 0.008), has_aux=True))
    state = {**path_state(), "pl_mean": jnp.float32(0.5)}
    for _ in range(2):  # images 0 to 7
        (value, (state, _)), gradient = loss(PARAMS, state, jax.random.key(0), BATCH)
        assert (value, state["pl_mean"]) == (0, 0.5)
        assert not gradient["g"].any()
    plain = jax.value_and_grad(path_loss(LINEAR, 2.0, interval=1), has_aux=True)
    (expected, (after, _)), slope = plain(PARAMS, {"pl_mean": jnp.float32(0.5)}, jax.random.key(0), BATCH)
    (value, (state, _)), gradient = loss(PARAMS, state, jax.random.key(0), BATCH)
    np.testing.assert_allclose((value, state["pl_mean"]), (expected, after["pl_mean"]), rtol=1e-6)
    np.testing.assert_allclose(gradient["g"], slope["g"], rtol=1e-5)
    assert state["path_images"] == 12
