"""Cascades: how their stages must fit, differ, see small images and are guided."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from experiments import cascade
from jgen.config import changed
from jgen.recipes.diffusion.low_res import blurred
from jgen.samplers import image_keys
from jgen.sharding import make_mesh
from jgen.train.loop import check
from tests import tiny
from tests.tiny import shape_of, stages


def test_a_cascade_must_fit_its_set():
    with pytest.raises(ValueError, match=r"sizes=\(3, 8\): each must divide the next"):
        stages(cascade, "cascade", "--sizes", "3", "8")
    with pytest.raises(ValueError, match=r"attention=5: no level has so many pixels; there are 4, 8"):
        stages(cascade, "cascade", "--attention", "4", "5")
    with pytest.raises(ValueError, match=r"stages.2: there are 2 stages, 0 and up: base, super_8"):
        stages(cascade, "cascade", "--stages.2.steps", "9")
    with pytest.raises(ValueError, match=r"stages.1.attention=2: no level has so many pixels; there are 8"):
        stages(cascade, "cascade", "--stages.1.attention", "2")
    with pytest.raises(ValueError, match=r"stages.0.channel_mult=\(1, 1, 1, 1\): 4 halves evenly to 3 levels"):
        stages(cascade, "cascade", "--stages.0.channel-mult", "1", "1", "1", "1")
    three = stages(cascade, "cascade", "--sizes", "2", "4", "8", "--stages.2.steps", "9")
    assert [stage.train.steps for stage in three] == [4, 4, 9]
    for flags, message in {
        ("--stages.0.channel-mult",): "channel_mult: must have a number of 1 or more for each level, in stage base",
        ("--stages.1.channels", "0"): "stages.1.channels=0: must be at least 1",
        ("--stages.1.dropout", "1.5"): "stages.1.dropout=1.5: must be from 0 to below 1",
        ("--stages.1.blur", "2"): "stages.1.blur=2.0: must be from 0 to 1",
        ("--stages.0.blur", "0.5"): "stages.0.blur=0.5: the first stage has no smaller image",
        ("--stages.0.diffusion-steps", "1"): "stages.0.diffusion_steps=1: must be at least 2",
        ("--stages.0.diffusion-steps", "2", "--sampling.steps", "3"): "steps: 3 for base; dpm takes from 1 to 2",
        ("--sampling.steps-each", "99", "2"): "steps_each: 99 for base; dpm takes from 1 to 40",
    }.items():
        with pytest.raises(ValueError, match=message):
            check(stages(cascade, "cascade", *flags)[-1], make_mesh())
    with pytest.raises(ValueError, match="num_heads=3: does not divide the 8 channels .*, in stage super_8"):
        tiny.shapes_of(stages(cascade, "cascade", "--stages.1.num-heads", "3")[1])
    base, last = stages(cascade, "cascade", "--stages.0.steps", "9", "--stages.0.channels", "8", "--stages.1.channels", "16")
    widths = tiny.shapes_of(last)[0]
    assert [widths[name]["out_2"]["kernel"].shape[2] for name in ("base", "super_8")] == [8, 16]
    assert shape_of(last, samplers=("ddpm", "heun"), steps_each=(4, 3)) == (3, 8, 8, 1)
    with pytest.raises(ValueError, match="steps_each: 99 for base; ddim takes from 1 to 40"):
        shape_of(last, samplers=("ddim", "dpm"), steps_each=(99, 2))
    assert (base.train.steps, last.train.steps) == (9, 4)
    assert shape_of(base) == (3, 4, 4, 1)
    assert shape_of(last, sampler="ddim") == (3, 8, 8, 1)
    with pytest.raises(ValueError, match="augment=2.0: must be from 0 to the 0.5"):
        shape_of(last, augment=2.0)
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(last, guidance=2.0)


def test_stages_of_a_cascade_differ_as_they_are_told():
    """One that learns its variance, along a longer chain and with heads of its own, before one that does not."""
    own = ["--stages.0.objective", "hybrid", "--stages.0.diffusion-steps", "50", "--stages.0.batch-size", "16"]
    own += ["--stages.0.num-heads", "2", "--stages.1.most-augment", "0", "--stages.1.channel-mult", "1", "2"]
    base, last = stages(cascade, "cascade", *own)
    assert (base.data.batch_size, last.data.batch_size) == (16, 8)
    weights = tiny.shapes_of(last)[0]
    assert [weights[name]["out_2"]["kernel"].shape[-1] for name in ("base", "super_8")] == [2, 1]
    batch = {"image": jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)}
    made = tiny.shapes_of(base)
    assert "vb" in jax.eval_shape(base.phases[0].loss, *made, jax.random.key(0), batch)[1][1]
    assert shape_of(last, sampler="ddpm", variance="learned_range", steps_each=(50, 40), augment=0.0) == (3, 8, 8, 1)
    with pytest.raises(ValueError, match="variance=learned_range: no stage that ddpm samples learned its variance"):
        shape_of(last, sampler="ddpm", samplers=("dpm", "ddpm"), variance="learned_range", augment=0.0)
    with pytest.raises(ValueError, match="steps_each: 50 for super_8; ddpm takes from 2 to 40"):
        shape_of(last, sampler="ddpm", steps_each=(50, 50), augment=0.0)
    with pytest.raises(ValueError, match=r"augment=0.1: must be from 0 to the 0\.0 it was trained with"):
        shape_of(last, augment=0.1)
    _, plain = stages(cascade, "cascade")
    with pytest.raises(ValueError, match="variance=learned_range: no stage that ddpm samples learned its variance"):
        shape_of(plain, sampler="ddpm", variance="learned_range")


@pytest.mark.parametrize("sigma", [0.4, 0.6])
def test_small_images_are_blurred_by_a_gaussian(sigma):
    """As SciPy's, cut off after one pixel."""
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 3)).astype(np.float32)
    expected = gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest", truncate=1 / sigma)
    np.testing.assert_allclose(blurred(jnp.asarray(x), jnp.full(2, sigma)), expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_every_stage_of_a_cascade_is_guided(sampler):
    """Where all labels are the null label, guidance of any scale is none; where they are not, it is some."""
    _, last = stages(cascade, "cascade", "--conditional", "--drop-label", "0.1")
    params, extra = tiny.fresh(last)
    params = jax.tree.map(lambda p: p + 0.05, params)  # the last layers begin at 0, and would hide the label

    @partial(jax.jit, static_argnums=1)
    def draw(params, scale):
        options = changed(last.options, {"sampler": sampler, "guidance": scale, "label": 3})
        return last.sample(params, extra, image_keys(0, 2), options)

    plain, guided = draw(params, 1.0), draw(params, 4.0)
    assert np.abs(plain - guided).max() > 1e-3
    for player in params:
        table = params[player]["label_emb"]["embedding"]
        params[player]["label_emb"]["embedding"] = table.at[3].set(table[10])
    np.testing.assert_allclose(draw(params, 1.0), draw(params, 4.0), atol=1e-4)
