"""The constant of StyleGAN2 as a band-limited signal that can be moved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.metrics.equivariance import rotation_matrix
from jgen.models.gan.moved_constant import moved_constant, with_moved_constant

CONSTANT = jnp.asarray(np.random.default_rng(0).normal(size=(4, 4, 3)), jnp.float32)


def shift(x, y):
    return jnp.eye(3).at[:2, 2].set(jnp.asarray([x, y]))


def test_the_identity_and_whole_samples_are_exact():
    np.testing.assert_allclose(moved_constant(CONSTANT, jnp.eye(3)), CONSTANT, atol=1e-5)
    found = moved_constant(CONSTANT, shift(-0.25, -0.5))  # the inverse of a move to the right and down
    np.testing.assert_allclose(found, jnp.roll(CONSTANT, (2, 1), (0, 1)), atol=1e-5)
    turned = moved_constant(CONSTANT, rotation_matrix(jnp.pi / 2))
    assert any(np.allclose(turned, jnp.rot90(CONSTANT, k), atol=1e-5) for k in (1, 3))


def test_two_shifts_are_one_where_there_is_no_highest_frequency():
    smooth = jnp.cos(2 * jnp.pi * (jnp.arange(4) / 4))[:, None, None] * jnp.ones((4, 4, 1))
    twice = moved_constant(moved_constant(smooth, shift(0.03, 0.1)), shift(0.05, -0.2))
    np.testing.assert_allclose(twice, moved_constant(smooth, shift(0.08, -0.1)), atol=1e-5)


def test_only_the_constant_of_the_weights_moves():
    params = {"synthesis": {"b4": {"const": CONSTANT, "bias": jnp.ones(3)}}}
    found = jax.jit(with_moved_constant)(params, shift(0.1, 0.0))["synthesis"]["b4"]
    assert not np.allclose(found["const"], CONSTANT)
    np.testing.assert_array_equal(found["bias"], 1)


@pytest.mark.parametrize("n", [4, 5])
def test_a_wave_below_the_band_is_sampled_exactly(n):
    place = (jnp.arange(n) + 0.5) / n - 0.5
    wave = lambda x, y: jnp.sin(2 * jnp.pi * (x - y))  # noqa: E731
    found = moved_constant(wave(place[None, :], place[:, None])[..., None], shift(0.07, 0.2))
    np.testing.assert_allclose(found[..., 0], wave(place[None, :] + 0.07, place[:, None] + 0.2), atol=1e-5)
