"""Sketches against closed forms."""

import jax.numpy as jnp
import numpy as np

from jgen.edit.sketch import sketch


def test_lines_are_where_levels_change_whatever_their_contrast():
    """A step of any height is two black columns; a slope is one grey level; one colour is white."""
    step = jnp.broadcast_to(jnp.where(jnp.arange(8) < 4, -1.0, 1.0)[None, None, :, None], (1, 6, 8, 3))
    for height in (1.0, 0.1):
        found = sketch(step * height)
        np.testing.assert_allclose(found[0, :, 3:5], -1.0, atol=1e-6)
        np.testing.assert_array_equal(found[0][:, [0, 1, 2, 5, 6, 7]], 1.0)
    np.testing.assert_allclose(sketch(jnp.swapaxes(step, 1, 2)), jnp.swapaxes(sketch(step), 1, 2))
    np.testing.assert_array_equal(sketch(jnp.full((2, 4, 4, 1), 0.3)), 1.0)
