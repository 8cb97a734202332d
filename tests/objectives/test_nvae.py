"""NVAE's weights of the KL and its regularisation against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.objectives.nvae import balance, balance_factors, greatest_gains, kl_weight, matrices, spectral_norms, spectral_start

pytestmark = pytest.mark.slow


def test_the_kl_is_constant_then_rises_then_is_whole():
    weights = [float(kl_weight(jnp.asarray(step), 300, 10, 1e-4)) for step in (0, 10, 160, 310, 900)]
    np.testing.assert_allclose(weights, [1e-4, 1e-4, 0.5, 1, 1], rtol=1e-6)


def test_balance_factors_are_sides_squared_over_groups():
    np.testing.assert_allclose(balance_factors((10, 5)), [1.0] * 5 + [2.0] * 10)  # 4 / 10 over 1 / 5
    np.testing.assert_allclose(balance_factors((3,)), [1.0] * 3)


def test_groups_with_larger_kls_weigh_more_and_the_mean_weight_is_1():
    kls = jnp.array([[1.0, 3.0], [3.0, 5.0]])  # means 2 and 4
    found = balance(kls, np.array([1.0, 2.0]))
    np.testing.assert_allclose(found, 2 * np.array([2.01, 2.005]) / (2.01 + 2.005), rtol=1e-6)
    assert not np.any(jax.jacobian(lambda k: balance(k, np.array([1.0, 2.0])))(kls))


def test_spectral_norms_are_the_greatest_singular_values_and_have_their_gradient():
    rng = np.random.default_rng(0)
    params = {
        "a": {"kernel": jnp.asarray(rng.normal(size=(3, 3, 4, 5)), jnp.float32), "bias": jnp.zeros(5)},
        "b": {"inner": {"kernel": jnp.asarray(rng.normal(size=(1, 1, 36, 5)), jnp.float32), "log_norm": jnp.arange(5.0)}},
        "norm": {"scale": jnp.array([0.5, -2.0]), "bias": jnp.zeros(2)},
        "dense": {"kernel": jnp.ones((4, 4))},
    }
    stacks = matrices(params)
    assert {name: stack.shape for name, stack in stacks.items()} == {"5x36": (2, 5, 36)}
    exact = np.linalg.svd(stacks["5x36"], compute_uv=False)[:, 0].sum()
    u = spectral_start(jax.random.key(0), params)
    total, after = spectral_norms(stacks, u, 20)
    np.testing.assert_allclose(total, exact, rtol=1e-4)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, u)
    left, _, right = np.linalg.svd(stacks["5x36"], full_matrices=False)
    gradient = jax.grad(lambda s: spectral_norms(s, after, 20)[0])(stacks)["5x36"]
    np.testing.assert_allclose(gradient, left[:, :, :1] * right[:, :1], atol=1e-3)
    np.testing.assert_allclose(greatest_gains(params), 2.0)
