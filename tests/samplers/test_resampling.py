"""Sampling-importance-resampling and Langevin dynamics on a base times a known ratio: a Gaussian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.samplers import image_keys, unadjusted_langevin
from jgen.samplers.resampling import resample

pytestmark = pytest.mark.slow
MEAN, DEVIATION = jnp.array([0.8, -0.4]), jnp.array([0.6, 0.9])


def log_ratio(x):
    """log of N(MEAN, DEVIATION^2) over N(0, 1), up to a constant: [N, 2] -> [N]."""
    return jnp.sum(-0.5 * ((x - MEAN[None]) / DEVIATION[None]) ** 2 + 0.5 * x**2, -1)


def test_resampled_moments_are_the_targets():
    x = jax.jit(lambda: resample(log_ratio, image_keys(0, 20_000), (2,), proposals=200))()
    np.testing.assert_allclose(jnp.mean(x, 0), MEAN, atol=0.02)
    np.testing.assert_allclose(jnp.std(x, 0), DEVIATION, atol=0.02)


def test_one_proposal_is_a_draw_of_the_base_and_a_temperature_scales_it():
    x = jax.jit(lambda: resample(log_ratio, image_keys(0, 20_000), (2,), proposals=1, deviation=0.5))()
    np.testing.assert_allclose(jnp.mean(x, 0), 0.0, atol=0.02)
    np.testing.assert_allclose(jnp.std(x, 0), 0.5, atol=0.02)


def test_the_proposals_of_a_step_change_nothing_and_an_image_depends_on_its_key_alone():
    keys = image_keys(3, 6)
    whole = resample(log_ratio, keys, (2,), proposals=10, at_once=10)
    np.testing.assert_array_equal(resample(log_ratio, keys, (2,), proposals=10, at_once=3), whole)
    np.testing.assert_array_equal(resample(log_ratio, keys[2:5], (2,), proposals=10), whole[2:5])


def test_langevin_dynamics_of_base_and_ratio_has_the_targets_moments():
    def score(x):
        return -x + jax.grad(lambda x: jnp.sum(log_ratio(x)))(x)

    step, keys = 0.02, image_keys(1, 20_000)
    x = jax.jit(lambda: unadjusted_langevin(score, jnp.zeros((20_000, 2)), keys, steps=150, step_size=step))()
    np.testing.assert_allclose(jnp.mean(x, 0), MEAN, atol=0.03)
    # A step of size h leaves the variance v / (1 - h / 2v) of a Gaussian.
    np.testing.assert_allclose(jnp.var(x, 0), DEVIATION**2 / (1 - step / (2 * DEVIATION**2)), atol=0.03)


def test_no_proposals_are_refused():
    with pytest.raises(UserError, match="proposals=0: a sampler needs at least 1"):
        resample(log_ratio, image_keys(0, 1), (2,), proposals=0)
