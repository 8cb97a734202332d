"""Measures of edits: how many pictures move to a value, reach it, and keep the rest."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from PIL import Image

from jgen.config import DataConfig
from jgen.edit.timing import timed
from jgen.errors import UserError
from jgen.recipes.inversion.attributes import Examples, Judge, _pairs, examples_of, measure


def test_an_edit_of_one_pixel_moves_its_attribute_and_keeps_the_other():
    """Attributes are the signs of two pixels; one of many values and one of parts are not measured."""
    images = np.random.default_rng(0).uniform(-1, 1, (200, 1, 2, 1)).astype(np.float32)
    signs = {name: (images[:, 0, i, 0] > 0).astype(float) for i, name in enumerate(("left", "right"))}
    examples = Examples(
        images, {**signs, "many": np.arange(200.0), "part": signs["left"] / 2, "both": signs["left"] + signs["right"]}, {}
    )
    judge = Judge.fit(lambda images: images.reshape(len(images), -1), examples._replace(combined=("both",)))
    assert set(judge.classifiers) == set(judge.accuracy) == {"left", "right"}
    assert all(share > 0.9 for share in judge.accuracy.values())
    before = jnp.asarray(images[:50])
    found = measure(judge, before, before.at[:, :, 0].add(2.0), "left", 1)
    assert found == (1.0, 1.0, {"right": 1.0})
    slight = measure(judge, before, before.at[:, :, 0].add(0.01), "left", 1)
    assert slight.moved == 1
    assert slight.reached < 0.2
    lost = measure(judge, before, -before, "left", 1)
    assert lost.kept["right"] < 0.1
    assert np.isnan(measure(judge, jnp.abs(before) + 0.2, before, "left", 1).moved)


def test_values_that_are_no_place_on_a_scale_are_neither_learnt_from_nor_counted():
    """Tones of 0 ("no tone") and 1 to 3; an edit from 1 to 3 is measured on pictures that show 1 or 2."""
    tone = np.tile(np.arange(4.0), 50)
    images = np.broadcast_to((tone / 3)[:, None, None, None], (200, 1, 2, 1)).astype(np.float32)
    examples = Examples(images, {"tone": tone}, {"tone": (0,)})
    assert examples.stated("tone").sum() == 150
    seen = Judge.fit(lambda images: jnp.square(images[:, 0, 0] * 3 - jnp.arange(4)[None]), examples)
    before = jnp.asarray(images[:40])
    found = measure(seen, before, before.at[:].set(1.0), "tone", 3, (0,))
    assert (found.moved, found.reached) == (1.0, 1.0)
    still = measure(seen, before, jnp.where(before > 0, before, 1.0), "tone", 3, (0,))  # those without a tone get one
    assert (still.moved, still.reached) == (0.0, 0.0)


def test_examples_of_emoji_know_which_values_are_no_place_on_a_scale(tmp_path):
    """Firefighters of three genders and three tones, of which one is none."""
    for who in ("1f468", "1f469", "1f9d1"):
        for tone in ("", "-1f3fb", "-1f3ff"):
            Image.new("RGB", (8, 8), "red").save(tmp_path / f"{who}{tone}-200d-1f692.png")
    data = DataConfig("emoji", root=str(tmp_path), resolution=8, channels=3)
    parts = [found for split in ("train", "seen", "test") if (found := _there(replace(data, split=split)))]
    for found in parts:
        np.testing.assert_array_equal(found.stated("tone"), found.attributes["tone"] > 0)
        np.testing.assert_array_equal(found.stated("gender"), found.attributes["gender"] > 0)
        assert found.combined == ("label",)
    everything = _joined(parts)
    assert len(everything.images) == 9
    assert len(_pairs(everything, everything, "tone", ["tone", "gender"])) == 6  # a light one and a dark one of each gender
    assert len(_pairs(everything, everything, "gender", ["tone", "gender"])) == 6  # a man and a woman of each tone
    assert not len(_pairs(everything, everything, "tone", ["tone", "gender", "label"]))  # whose label changes with the tone


def _there(data):
    """The examples of a split; None where it is empty."""
    try:
        return examples_of(data, 0)
    except (UserError, IndexError):
        return None


def _joined(parts):
    attributes = {name: np.concatenate([part.attributes[name] for part in parts]) for name in parts[0].attributes}
    return parts[0]._replace(images=np.concatenate([part.images for part in parts]), attributes=attributes)


def test_a_text_asks_for_another_value_of_one_attribute_alone():
    values = {"tone": np.array([0.0, 1, 2, 1, 2]), "role": np.array([0.0, 0, 0, 1, 1])}
    examples = Examples(np.zeros((5, 1, 1, 1)), values, {"tone": (0,)})
    pairs = _pairs(examples, examples, "tone", ["tone", "role"])
    np.testing.assert_array_equal(pairs, [[1, 2], [2, 1], [3, 4], [4, 3]])  # none from or to "no tone"


def test_the_time_of_a_program_is_apart_from_that_of_its_compilation():
    found, seconds = timed(lambda x: x + 1, jnp.float32(1))
    assert found == 2
    assert 0 < seconds < 60
