"""Glyphs: images of known factors, which can be read from the pixels again."""

import jax
import numpy as np
import pytest

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.glyphs import CHARACTERS, COLOURS, FONTS, GREYS, Glyphs, colours_seen, decode_caption, measured


def test_glyphs_are_a_function_of_seed_and_index_with_exact_factors():
    a, b, other = Glyphs(32, seed=1), Glyphs(32, seed=1), Glyphs(32, seed=2)
    jax.tree.map(np.testing.assert_array_equal, a[7], b[7])
    assert not np.array_equal(a[7]["image"], other[7]["image"])
    assert not np.array_equal(a[7]["image"], Glyphs(32, seed=1, split="test")[7]["image"])
    names = tuple(COLOURS)
    for i in range(40):
        example, f = a[i], a.factors(i)
        corner = tuple(example["image"][0, 0])
        assert corner == COLOURS[names[f.background]]  # nothing reaches the corner
        middle = np.abs(example["image"].astype(int) - COLOURS[names[f.foreground]]).sum(-1)
        assert middle.min() < 200, "the foreground colour shows"
        caption = decode_caption(example["caption"])
        assert caption == a.caption(i)
        words = caption.split()
        assert words[-1] == names[f.background]
        assert CHARACTERS[example["label"]] == words[-3]
        assert ("rotated" in words) == (abs(f.rotation) > 15)
        assert names[f.foreground] in words


@pytest.mark.parametrize("size,channels", [(8, 1), (16, 3), (64, 1), (256, 3)])
def test_glyphs_come_at_any_resolution(size, channels):
    source = open_source(DataConfig("glyphs", resolution=size, channels=channels))
    assert source[0]["image"].shape == (size, size, channels)
    assert source.endless
    assert len(FONTS) >= 10


def test_the_position_factor_is_where_the_glyph_is():
    """The mass of a round character follows its position, in image widths."""
    from jgen.data.glyphs import Factors, draw

    for dx, dy in [(-0.1, 0.0), (0.1, 0.05)]:
        f = Factors(CHARACTERS.index("O"), 0, 1, 0, (dx, dy), 0.5, 0.0)
        ink = draw(f, (64, 64, 1), ((0,), (255,)))[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64] + 0.5
        assert abs((ink * columns).sum() / ink.sum() / 64 - 0.5 - dx) < 0.02
        assert abs((ink * rows).sum() / ink.sum() / 64 - 0.5 - dy) < 0.06  # the anchor is the line's middle


def test_factors_of_glyphs_can_be_read_from_their_pixels():
    source = Glyphs(16, 1)
    drawn = [source.factors(i) for i in range(300)]
    levels = np.array([v[0] for v in GREYS.values()]) / 127.5 - 1
    front, back = (levels[[getattr(f, k) for f in drawn]] for k in ("foreground", "background"))
    seen = measured(np.stack([source[i]["image"] for i in range(300)]) / 127.5 - 1)
    np.testing.assert_allclose(seen["ground"], back, atol=1e-6)
    np.testing.assert_array_equal(np.sign(seen["contrast"]), np.sign(front - back))
    true = {"right": [f.position[0] for f in drawn], "down": [f.position[1] for f in drawn], "size": [f.scale for f in drawn]}
    # A character's pixels are not spread evenly about its centre, nor do all fill their font's size.
    for (name, values), least in zip(true.items(), (0.92, 0.8, 0.6)):
        assert np.corrcoef(seen[name], values)[0, 1] > least
    blank = measured(np.zeros((1, 16, 16, 1)))
    assert all(v == 0 for v in blank.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_glyphs_can_be_read_from_their_pixels(channels):
    source = Glyphs(32, channels)
    drawn = [source.factors(i) for i in range(100)]
    front, back = colours_seen(np.stack([source[i]["image"] for i in range(100)]) / 127.5 - 1)
    np.testing.assert_array_equal(front, [f.foreground for f in drawn])
    np.testing.assert_array_equal(back, [f.background for f in drawn])
