"""The very deep VAE: what its layers and widths must be, and what its options do."""

import jax
import numpy as np
import pytest

from jgen.config import changed
from jgen.errors import UserError
from jgen.samplers import image_keys
from tests import tiny


def stage(*flags):
    (made,) = tiny.stages(tiny.module("vdvae"), "vdvae", *flags)
    return made


@pytest.mark.parametrize("flags,says", [
    (["--widths", "8:6"], "widths=8:6: the image's side, 8, has width="),
    (["--bottleneck", "0.01"], "bottleneck=0.01: leaves no channel inside of a block; must be at least"),
    (["--encoder-layers", "8y2"], "encoder_layers='8y2': '8y2' must be like 32x11, 32d2, 8m4 or 32"),
    (["--decoder-layers", "1"], "decoder_layers=1: no block at the image's side, 8"),
    (["--encoder-layers", "8x1,8d2,4d4,1x1", "--decoder-layers", "1x1,8m1,4m1"], "nothing comes of the last block at 4"),
])  # fmt: skip
def test_layers_and_widths_that_do_not_fit_are_refused_by_the_option_s_name(flags, says):
    with pytest.raises(UserError) as refused:
        stage(*flags)
    assert says in str(refused.value)


@pytest.mark.slow
def test_depth_and_temperatures_change_what_is_drawn_and_image_i_is_its_key_s_alone():
    made = stage()
    params, extra = jax.jit(made.init)(jax.random.key(0), {"image": np.zeros((1, 8, 8, 1), np.float32)})
    params = tiny.moved(params, 0.3)

    def draw(keys, **options):
        return np.asarray(jax.jit(lambda k: made.sample(params, extra, k, changed(made.options, options)))(keys))

    plain = draw(image_keys(0, 4))
    np.testing.assert_allclose(draw(image_keys(0, 6))[:4], plain, atol=1e-5)
    for options in (dict(depth=1), dict(temperature=0.5), dict(temperatures=(1.0, 0.5))):
        assert np.abs(draw(image_keys(0, 4), **options) - plain).max() > 1e-3, options
