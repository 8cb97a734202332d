"""SN-GAN's standard CNN: the published numbers of weights, and kernels of norm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.models.gan.sngan import Discriminator, Generator
from jgen.train.stage import count


@pytest.mark.parametrize("side,start", [(32, 4), (64, 8)])
def test_the_networks_are_those_of_the_table(side, start):
    g, d = Generator(side, 3), Discriminator(side)
    made = jax.eval_shape(lambda: g.init(jax.random.key(0), jnp.zeros((1, 128))))
    ups = [16 * a * b + 2 * b for a, b in ((512, 256), (256, 128), (128, 64))]  # and the norms' gains and shifts
    assert count(made["params"]) == 129 * start**2 * 512 + sum(ups) + 9 * 64 * 3 + 3
    shapes = jax.eval_shape(lambda: d.init(jax.random.key(0), jnp.zeros((1, side, side, 3))))
    convs = [(3, 3, 64), (4, 64, 64), (3, 64, 128), (4, 128, 128), (3, 128, 256), (4, 256, 256), (3, 256, 512)]
    assert count(shapes["params"]) == sum(k * k * a * b + b for k, a, b in convs) + start**2 * 512 + 1
    images = jax.eval_shape(lambda v: g.apply(v, jnp.zeros((2, 128))), made)
    assert images.shape == (2, side, side, 3)


@pytest.mark.slow
def test_a_discriminator_is_as_steep_as_its_kernels_are_and_those_have_norm_1():
    d = Discriminator(8, 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    made = jax.jit(d.init)(jax.random.key(0), x)
    step = jax.jit(lambda v: d.apply(v, x, mutable=["spectral"]))
    state = made["spectral"]
    for _ in range(30):
        _, new = step({"params": made["params"], "spectral": state})
        state = new["spectral"]
    for name, layer in made["params"].items():
        matrix = np.asarray(layer["kernel"]).reshape(-1, layer["kernel"].shape[-1])
        np.testing.assert_allclose(state[name]["sv"][0], np.linalg.svd(matrix)[1][0], rtol=1e-2)


def test_a_side_that_is_not_halved_three_times_is_refused():
    with pytest.raises(UserError, match="resolution=12: network=sn_dcgan needs a multiple of 8"):
        jax.eval_shape(lambda: Generator(12, 3).init(jax.random.key(0), jnp.zeros((1, 4))))
