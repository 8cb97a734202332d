"""The JPEG-style front end against scipy's transform and a JPEG library's tables."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.dct import jpeg
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.mark.parametrize("path", files("dct", "jpeg_independent"))
def test_front_end(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        image = jnp.asarray(o["in/image"], jnp.float64)
        colours = jpeg.ycbcr(image)
        o.check("out/ycbcr_float", colours)
        exact("out/ycbcr_uint8_libjpeg_style", o, np.round(colours), within=1)
        back = jpeg.rgb(jnp.asarray(o["out/ycbcr_uint8_libjpeg_style"], jnp.float64))
        exact("out/rgb_back_uint8_libjpeg_style", o, np.clip(np.round(back), 0, 255), within=1)
        blocks = jpeg.to_blocks(colours - 128)
        o.check("out/blocks_level_shifted", blocks)
        o.check("out/dct_blocks", jpeg.dct(blocks))
        o.check("out/dct_matrix", jpeg.dct_matrix())
        np.testing.assert_allclose(jpeg.inverse_dct(jpeg.dct(blocks)), blocks, atol=1e-9)
        exact("out/zigzag_flat_order", o, jpeg.zigzag())
        qualities = o.config["qualities"]
        exact("out/qtable_luma", o, np.stack([jpeg.tables(q)[0] for q in qualities]))
        exact("out/qtable_chroma", o, np.stack([jpeg.tables(q)[1] for q in qualities]))
        for q in qualities:
            levels = jpeg.quantized(image, q)
            exact(f"out/zigzag_quantised/q{q}", o, levels)
            natural = np.asarray(levels)[..., np.argsort(jpeg.zigzag())]
            exact(f"out/quantised/q{q}", o, natural.reshape(*natural.shape[:-1], 8, 8))
            scaled = jpeg.dct(blocks) / jpeg.tables(q)[None, None]
            o.check(f"out/rounding_margin/q{q}", np.min(np.abs(np.abs(scaled - np.round(scaled)) - 0.5)), 1e-3)
            shown = jpeg.pixels_of(levels, q)
            want = o[f"out/dequantised/q{q}"]
            shown = jpeg.ycbcr(shown) if np.max(np.abs(shown - want)) > 0.01 else shown
            o.check(f"out/dequantised/q{q}", shown, 1e-5)
            assert np.max(np.abs(levels)) <= jpeg.bound(q)
        o.check_whole()


def exact(name, o, value, within=0):
    """Compares whole numbers."""
    assert np.max(np.abs(np.asarray(value, np.int64) - o[name].astype(np.int64))) <= within, name
    o.checked.add(name)


@pytest.mark.parametrize("path", files("dct", "dctransformer_pytorch_quirky"))
def test_what_the_port_has_right(path):
    """Its transform is no DCT and is not imitated; its orders are right, and its tables but for their roundings."""
    o = Oracle(path)
    rank = np.empty(64, int)
    rank[jpeg.zigzag()] = np.arange(64)
    exact("out/zigzag_rank", o, rank.reshape(8, 8))
    matrix = o["out/zigzag_matrix"]
    order = np.eye(64)[jpeg.zigzag()]
    assert any(np.array_equal(matrix, m) for m in (order, order.T))
    o.checked.add("out/zigzag_matrix")
    # Theirs are not kept within 1 and 255.
    np.testing.assert_allclose(np.clip(o["out/Q_luma"], 1, 255), jpeg.tables(o.config["q"])[0], atol=1)
    np.testing.assert_allclose(o["out/Q_chroma"], jpeg.tables(50)[1], atol=1)  # at every quality
    o.checked |= {"out/Q_luma", "out/Q_chroma"}
    colours = np.asarray(jpeg.ycbcr(jnp.asarray(o.nhwc("in/x")) * 255)) / 255
    np.testing.assert_allclose(o.nhwc("out/ycbcr"), colours, atol=0.5 / 255 + 1e-3)  # theirs adds 0.5, JFIF 128 / 255
    o.checked.add("out/ycbcr")
    o.check_whole("out/coefficients", "out/kernels", "out/norm_diagonal")


@pytest.mark.parametrize("quality", [1, 25, 50, 75, 100])
def test_nothing_is_lost_but_the_rounding(quality):
    x = jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 16, 8, 3)), jnp.float32)
    levels = jpeg.quantized(x, quality)
    again = jpeg.quantized(jpeg.pixels_of(levels, quality), quality)
    np.testing.assert_array_equal(again, levels)


def test_bad_input_is_one_line():
    with pytest.raises(ValueError, match="image of 12x8: sides must be divisible by 8"):
        jpeg.quantized(jnp.zeros((12, 8, 1)), 50)
    with pytest.raises(ValueError, match="quality=0: must be from 1 to 100"):
        jpeg.tables(0)
