"""Measures of edits: how many pictures move to a value, reach it, and keep the rest."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np

from jgen.edit.timing import timed
from jgen.recipes.inversion.attributes import Examples, Judge, measure


def test_an_edit_of_one_pixel_moves_its_attribute_and_keeps_the_other():
    """Attributes are the signs of two pixels; one of many values and one of parts are not measured."""
    images = np.random.default_rng(0).uniform(-1, 1, (200, 1, 2, 1)).astype(np.float32)
    signs = {name: (images[:, 0, i, 0] > 0).astype(float) for i, name in enumerate(("left", "right"))}
    examples = Examples(images, {**signs, "many": np.arange(200.0), "part": signs["left"] / 2})
    editor = SimpleNamespace(features=lambda images: images.reshape(len(images), -1))
    judge = Judge.fit(editor, examples)
    assert set(judge.classifiers) == {"left", "right"}
    before = jnp.asarray(images[:50])
    found = measure(judge, before, before.at[:, :, 0].add(2.0), "left", 1)
    assert found == (1.0, 1.0, 1.0)
    slight = measure(judge, before, before.at[:, :, 0].add(0.01), "left", 1)
    assert slight.moved == 1
    assert slight.reached < 0.2
    lost = measure(judge, before, -before, "left", 1)
    assert lost.kept < 0.1
    assert np.isnan(measure(judge, jnp.abs(before) + 0.2, before, "left", 1).moved)


def test_the_time_of_a_program_is_apart_from_that_of_its_compilation():
    found, seconds = timed(lambda x: x + 1, jnp.float32(1))
    assert found == 2
    assert 0 < seconds < 60
