"""Noise contrastive estimation where the ratio of base and target is known: two Gaussians."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.objectives.noise_contrastive import accuracy, binary_nce, log_normalizer

pytestmark = pytest.mark.slow
MEAN, DEVIATION = 0.8, 0.6


def log_ratio(z):
    """log N(z; MEAN, DEVIATION^2) / N(z; 0, 1)."""
    return -0.5 * ((z - MEAN) / DEVIATION) ** 2 + 0.5 * z**2 - np.log(DEVIATION)


def draws(count):
    """(target, base)."""
    keys = jax.random.split(jax.random.key(0))
    return MEAN + DEVIATION * jax.random.normal(keys[0], (count,)), jax.random.normal(keys[1], (count,))


def test_the_least_loss_is_at_the_log_ratio():
    target, base = draws(200_000)
    features = [jnp.stack([jnp.ones_like(z), z, z**2], -1) for z in (target, base)]

    def loss(w):
        return binary_nce(*(f @ w for f in features))

    @jax.jit
    def newton(w):
        return w - jnp.linalg.solve(jax.hessian(loss)(w), jax.grad(loss)(w))

    w = jnp.zeros(3)
    for _ in range(12):  # the loss is convex in w
        w = newton(w)
    v = DEVIATION**2
    expected = [-0.5 * MEAN**2 / v - np.log(DEVIATION), MEAN / v, 0.5 - 0.5 / v]
    np.testing.assert_allclose(w, expected, atol=0.03)


def test_the_loss_is_2_log_2_for_equal_densities_and_its_least_gives_the_divergence():
    assert float(binary_nce(jnp.zeros(5), jnp.zeros(5))) == np.float32(2 * np.log(2))
    # At the log ratio the loss is 2 log 2 - 2 JSD; the divergence by quadrature.
    z = np.linspace(-8, 8, 20001)
    q, p = np.exp(-0.5 * ((z - MEAN) / DEVIATION) ** 2) / DEVIATION, np.exp(-0.5 * z**2)
    q, p, m = q / np.sum(q), p / np.sum(p), (q / np.sum(q) + p / np.sum(p)) / 2
    divergence = 0.5 * np.sum(q * np.log(np.maximum(q, 1e-300) / m) + p * np.log(p / m))
    target, base = draws(200_000)
    assert abs(float(binary_nce(log_ratio(target), log_ratio(base))) - 2 * (np.log(2) - divergence)) < 5e-3


def test_the_normalizer_of_a_ratio_of_densities_is_1_and_a_constant_adds_to_its_log():
    _, base = draws(200_000)
    assert abs(float(log_normalizer(log_ratio(base)))) < 0.02
    np.testing.assert_allclose(log_normalizer(jnp.full((4, 3), 2.5)), 2.5, rtol=1e-6)


def test_accuracy_counts_both_sides():
    assert float(accuracy(jnp.array([1.0, -1.0]), jnp.array([-1.0, -2.0]))) == 0.75
