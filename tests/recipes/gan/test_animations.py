"""Moving pictures of style-based generators: a round ends where it began, and begins with the run's own images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config import StyleSampling
from jgen.edit.latents import closed_walk
from jgen.edit.space import StyleSpace
from jgen.recipes.gan.animations import SHIFT, STRIP_STEPS, STRIPS, _shift, animations, walks
from jgen.samplers import image_keys
from tests import tiny


def test_a_closed_walk_meets_its_points_smoothly():
    points = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3, 2)), jnp.float32)
    np.testing.assert_allclose(
        closed_walk(points, jnp.asarray([0, 0.25, 0.5, 0.75, 1.0])), points[jnp.asarray([0, 1, 2, 3, 0])]
    )
    speed = jax.jacfwd(lambda t: closed_walk(points, t[None])[0])
    for k in range(4):
        expected = (points[(k + 1) % 4] - points[k - 1]) / 2 * 4
        for side in (-1e-4, 1e-4):
            np.testing.assert_allclose(speed(jnp.float32(k / 4 + side)), expected, atol=0.05)


def test_a_walk_of_a_class_passes_its_styles_and_truncates_to_its_mean():
    def styles(params, extra, keys, label=-1):
        return jnp.full((len(keys), 2, 3), 1.0 + label)

    space = StyleSpace(2, 3, styles, lambda params, extra, ws: ws, lambda extra, label=-1: jnp.full(3, 10.0 * label), 3)
    for label in (-1, 2):
        ws = walks(space, {}, {}, 0, 5, jnp.asarray([0.0, 0.3]), 0.5, label)
        assert ws.shape == (5, 2, 2, 3)
        np.testing.assert_allclose(ws, 0.5 * (1 + label) + 0.5 * 10 * label, rtol=1e-6)


def test_images_that_are_shifted_move_on_a_circle_from_where_they_are():
    np.testing.assert_array_equal(_shift(jnp.zeros(()), jnp.zeros(())), jnp.eye(3))
    np.testing.assert_allclose(_shift(jnp.ones(()), jnp.zeros(()))[:2, 2], [-SHIFT, 0])


@pytest.mark.slow
def test_a_round_ends_where_it_began_and_begins_with_the_images_as_they_are():
    stage = tiny.stages(tiny.module("stylegan2"), "stylegan2")[-1]
    params, extra = tiny.fresh(stage)
    found = animations(stage, stage.options)
    assert list(found) == ["walk", "translate", "rotate"]
    for name in ("walk", "translate"):
        made = jax.jit(found[name], static_argnums=2)
        first, last, half = (made(params, extra, 3, jnp.float32(t)) for t in (0, 1, 0.5))
        np.testing.assert_allclose(first, last, atol=1e-4)
        assert first.shape == (8, 8, 8, 1)
        assert not np.allclose(first, half, atol=1e-3), name
    still = stage.sample(params, extra, image_keys(3, 8), StyleSampling())
    np.testing.assert_allclose(jax.jit(found["translate"], static_argnums=2)(params, extra, 3, 0.0), still, atol=1e-4)


@pytest.mark.slow
def test_a_sticking_picture_is_a_strip_of_columns():
    stage = tiny.stages(tiny.module("stylegan2"), "stylegan2")[-1]
    shape = jax.eval_shape(stage.on_request["sticking"], *tiny.shapes_of(stage), jax.random.key(0), {}).shape
    assert shape == (STRIPS, 8, STRIP_STEPS, 1)
