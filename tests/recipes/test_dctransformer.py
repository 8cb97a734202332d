"""DCTransformer's stage: windows drawn at random have the mean of the whole likelihood, pictures keep what they are given."""

import jax
import numpy as np
import pytest

from jgen.data import open_source
from jgen.recipes.autoregressive.dctransformer import frequencies_shown
from jgen.train.stage import first_batch
from tests import tiny

pytestmark = pytest.mark.slow


def test_a_window_of_each_image_has_the_likelihood_of_the_whole_in_the_mean():
    stage = tiny.stages(tiny.module("dctransformer"), "dctransformer")[0]
    batch = first_batch(stage, open_source(stage.data))
    params, extra = tiny.fresh(stage)
    each = jax.jit(jax.vmap(lambda key, params: stage.phases[0].loss(params, extra, key, batch)[0], (0, None)))
    found = np.asarray(each(jax.random.split(jax.random.key(0), 64), params))
    whole, (_, metrics) = jax.jit(lambda p: stage.validate(p, extra, jax.random.key(0), batch))(params)
    assert abs(found.mean() - whole) < 4 * found.std() / 8
    assert metrics["cut"] == 0
    assert metrics["bits_per_dim"] == pytest.approx(float(whole) / np.log(2))


def test_dropout_moves_the_loss_of_training_and_leaves_the_likelihood():
    """The mean over its draws is near the loss without it; the likelihood has none."""

    def losses(*flags):
        stage = tiny.stages(tiny.module("dctransformer"), "dctransformer", *flags)[0]
        batch, (params, extra) = first_batch(stage, open_source(stage.data)), tiny.fresh(stage)
        params = tiny.moved(params, 0.3)
        run = jax.jit(lambda key: stage.phases[0].loss(params, extra, key, batch)[0])
        whole = jax.jit(lambda key: stage.validate(params, extra, key, batch)[0])
        return [float(run(jax.random.key(i))) for i in range(2)], [float(whole(jax.random.key(i))) for i in range(2)]

    plain, dropped = losses(), losses("--dropout", "0.3")
    assert dropped[1] == plain[1]
    assert dropped[1][0] == dropped[1][1]
    assert np.abs(np.subtract(dropped[0], plain[0])).min() > 1e-4


def test_pictures_keep_what_they_are_given():
    stage = tiny.stages(tiny.module("dctransformer"), "dctransformer", "--sampling.frequencies", "2")[0]
    batch, (params, extra) = first_batch(stage, open_source(stage.data)), tiny.fresh(stage)
    shown = {
        name: np.asarray(jax.jit(picture)(params, extra, jax.random.key(0), batch)).reshape(8, 8, 8, 8, 1)
        for name, picture in stage.pictures.items()
    }
    x = np.asarray(batch["image"][:8])
    error = np.square(shown["coefficients"][:, :7] - x[:, None]).mean((0, 2, 3, 4))
    assert (np.diff(error) < 0).all()
    np.testing.assert_array_equal(shown["coefficients"][:, 7], x)
    assert np.abs(shown["inpainted"][:, 2:, :, :4] - shown["coefficients"][:, 6:7, :, :4]).max() < 1e-6
    assert shown["inpainted"][:, 2:, :, 4:].std(1).mean() > 0.01
    assert shown["upsampled"][:, 2:].std(1).mean() > 0.01
    assert frequencies_shown(16)[-1] == 16


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--block", "3", "--patch", "2"], "patch=2, heads=2: must divide the 3x3 blocks of an image"),
        (["--sampling.frequencies", "16"], "frequencies=16: must be below the 16 of a block, or nothing is drawn"),
        (["--overlap", "12"], "overlap=12: must be below chunk=12"),
        (["--length", "65"], "length=65: images have 64 coefficients"),
        (["--heads", "3"], "heads=3: must divide .* width=8"),
        (["--patch", "3"], "patch=3, heads=2: must divide the 2x2 blocks of an image and width=8"),
        (["--quality", "0"], "quality=0: must be from 1 to 100"),
        (["--data.dequantize"], "data.dequantize=True: the likelihood is of the quantised coefficients"),
    ],
)
def test_bad_options_are_one_line(flags, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny.stages(tiny.module("dctransformer"), "dctransformer", *flags)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_likelihood_that_leaves_coefficients_out_is_refused():
    (stage,) = tiny.stages(tiny.module("dctransformer"), "dctransformer", "--length", "5")
    batch = {"image": jax.random.uniform(jax.random.key(0), (8, 8, 8, 1), minval=-1), "label": np.zeros(8, np.int32)}
    params, extra = jax.jit(stage.init)(jax.random.key(0), batch)
    with pytest.raises(ValueError, match=r"length=5: 100.0% of the images have more coefficients that are not 0"):
        stage.evaluate(params, extra, jax.random.key(0), iter([batch]), 1)
