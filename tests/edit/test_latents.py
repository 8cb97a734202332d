"""Ways through a latent space at their degenerate ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.edit.latents import slerp
from jgen.metrics import paths

T = jnp.linspace(0, 1, 5)
Z = jax.random.normal(jax.random.key(0), (6,))


@pytest.mark.parametrize("other", [-Z, Z, 2 * Z, -0.5 * Z, Z[::-1], jnp.zeros(6)], ids=str)
def test_an_arc_begins_and_ends_at_its_points_with_even_lengths(other):
    for a, b in ((Z, other), (other, Z)):
        found = slerp(a, b, T)
        np.testing.assert_allclose(found[0], a, atol=1e-5)
        np.testing.assert_allclose(found[-1], b, atol=1e-5)
        sizes = jnp.linalg.norm(a) + T * (jnp.linalg.norm(b) - jnp.linalg.norm(a))
        np.testing.assert_allclose(jnp.linalg.norm(found, axis=1), sizes, rtol=1e-5, atol=1e-6)


def test_from_zero_to_zero_is_zero():
    np.testing.assert_array_equal(slerp(jnp.zeros(6), jnp.zeros(6), T), 0)


def test_opposite_points_of_paths_are_finite():
    found = paths.slerp(Z[None], -Z[None], jnp.array([0.5]))
    np.testing.assert_allclose(jnp.linalg.norm(found), 1, rtol=1e-5)
    assert abs(float(found[0] @ Z)) < 1e-5
