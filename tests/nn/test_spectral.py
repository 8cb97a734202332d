"""Spectral normalisation, conditional batch norm, attention and standing statistics in closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.errors import UserError
from jgen.nn.conditional_norm import ConditionalBatchNorm
from jgen.nn.grouped_conv import grouped_conv
from jgen.nn.nonlocal_attention import NonLocal
from jgen.nn.spectral import Conv, Dense, Embed, SpectralNorm, power_iteration
from jgen.nn.standing import standing_statistics


def test_power_iteration_finds_the_greatest_singular_values():
    matrix = jax.random.normal(jax.random.key(0), (6, 9))
    u = jax.random.normal(jax.random.key(1), (2, 6))
    for _ in range(200):
        values, u = power_iteration(matrix, u)
    want = jnp.linalg.svd(matrix)
    np.testing.assert_allclose(values, want.S[:2], rtol=1e-5)
    np.testing.assert_allclose(np.abs(u[0] @ want.U[:, 0]), 1.0, rtol=1e-5)


@pytest.mark.parametrize("layer", [Conv(5, 3), Conv(5, 1), Dense(5), Embed(5)], ids=lambda layer: type(layer).__name__)
def test_u_moves_in_training_calls_alone_and_the_weight_comes_to_norm_1(layer):
    layer = layer.clone(norm=SpectralNorm(iterations=2))
    x = jnp.ones((2, 4, 4, 3) if isinstance(layer, Conv) else (2, 3))
    variables = layer.init(jax.random.key(0), x)
    first = layer.apply(variables, x)
    _, state = layer.apply(variables, x, mutable=["spectral"])
    assert not np.array_equal(state["spectral"]["u"], variables["spectral"]["u"])
    np.testing.assert_array_equal(first, layer.apply(variables, x))
    for _ in range(30):
        _, state = layer.apply({**variables, **state}, x, mutable=["spectral"])
    (weight,) = (v for k, v in variables["params"].items() if k != "bias")
    matrix = weight.reshape(len(weight), -1) if isinstance(layer, Embed) else weight.reshape(-1, weight.shape[-1])
    np.testing.assert_allclose(state["spectral"]["sv"][0], jnp.linalg.svd(matrix).S[0], rtol=1e-4)


def test_upsampled_convolution_is_that_of_the_larger_image():
    x, up = jax.random.normal(jax.random.key(0), (2, 4, 4, 3)), Conv(5, up=True)
    variables = up.init(jax.random.key(1), x)
    large = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    np.testing.assert_allclose(up.apply(variables, x), Conv(5).apply(variables, large), atol=1e-5)


@pytest.mark.parametrize("size", [3, 4])
def test_grouped_convolution_is_a_convolution_a_group(size):
    x = jax.random.normal(jax.random.key(0), (2, 5, 4, 6))
    kernel = jax.random.normal(jax.random.key(1), (size, size, 2, 9))
    pads = (((size - 1) // 2, size // 2),) * 2
    want = [
        lax.conv_general_dilated(part, weights, (1, 1), pads, dimension_numbers=("NHWC", "HWIO", "NHWC"))
        for part, weights in zip(jnp.split(x, 3, -1), jnp.split(kernel, 3, -1))
    ]
    np.testing.assert_allclose(grouped_conv(x, kernel, 3), jnp.concatenate(want, -1), atol=1e-4)


def test_conditional_norm_normalises_and_its_state_moves_towards_the_batch():
    x, y = 3 + 2 * jax.random.normal(jax.random.key(0), (8, 6, 6, 4)), jnp.zeros((8, 3))
    norm = ConditionalBatchNorm()
    variables = norm.init(jax.random.key(1), x, y, True)
    out, state = norm.apply(variables, x, y, True, mutable=["batch_stats", "moments"])
    np.testing.assert_allclose(jnp.mean(out, (0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(jnp.std(out, (0, 1, 2)), 1, atol=1e-4)
    np.testing.assert_allclose(state["moments"]["mean"], jnp.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["mean"], 0.1 * jnp.mean(x, (0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(state["batch_stats"]["var"], 0.9 + 0.1 * jnp.var(x, (0, 1, 2), ddof=1), rtol=1e-4)


def test_standing_statistics_are_means_over_passes():
    x = jax.random.normal(jax.random.key(0), (5, 8, 2, 2, 3)) + 1
    y, norm = jnp.zeros((5, 8, 2)), ConditionalBatchNorm(unbiased=False)
    apply = partial(norm.apply)

    def passes(variables, x, y, *, train, mutable=False):
        return apply(variables, x, y, train, mutable=mutable)

    still = standing_statistics(passes, norm.init(jax.random.key(1), x[0], y[0], True), (x, y))
    np.testing.assert_allclose(still["batch_stats"]["mean"], jnp.mean(x, (0, 1, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(still["batch_stats"]["var"], jnp.mean(jnp.var(x, (1, 2, 3)), 0), rtol=1e-5)


def test_attention_begins_as_the_identity_and_wants_8_channels():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 8))
    net = NonLocal(SpectralNorm())
    np.testing.assert_array_equal(net.apply(net.init(jax.random.key(1), x), x), x)
    with pytest.raises(UserError, match="at least 8 channels"):
        net.init(jax.random.key(1), x[..., :4])
