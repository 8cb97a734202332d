"""Pictures of held-out images: inpainted and edited."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cascade, ddpm, edm, improved_ddpm, latent_diffusion, score_sde
from jgen.config import DiffusionSampling, Editing
from jgen.config.samplers import Euler
from jgen.recipes.diffusion.editing import edits, latent_mask, mask_of, mean_filled, smaller_mask
from jgen.recipes.diffusion.guidance import Request
from jgen.recipes.diffusion.model import NoiseLevels
from tests import tiny
from tests.tiny import conditional_stage, stages


def picture(name, stage, params, extra):
    """Eight rows of eight: the image, what is given, six results."""
    random = np.random.default_rng(0)
    batch = {"image": random.uniform(-1, 1, (16, 8, 8, 1)).astype(np.float32), "label": np.arange(16) % 10}
    found = jax.jit(stage.on_request[name])(params, extra, jax.random.key(0), batch)
    assert found.shape == (64, 8, 8, 1)
    assert np.isfinite(found).all()
    rows = np.asarray(found).reshape(8, 8, 8, 8, 1)
    np.testing.assert_allclose(rows[:, 0], batch["image"][:8], atol=1e-6)
    assert np.abs(rows[:, 2] - rows[:, 3]).max() > 1e-3
    return rows


@pytest.mark.parametrize(
    "module, sampling",
    [
        (edm, ["--sampling.sampler", "dpm_sde"]),
        (improved_ddpm, ["--sampling.steps", "8", "--sampling.resamplings", "3"]),
        (ddpm, ["--sampling.sampler", "ddpm", "--sampling.resamplings", "2", "--sampling.steps", "20"]),
        pytest.param(cascade, ["--sampling.samplers", "euler", "dpm", "--sampling.steps", "5"], marks=pytest.mark.slow),
        pytest.param(ddpm, [], marks=pytest.mark.slow),
        pytest.param(latent_diffusion, [], marks=pytest.mark.slow),
        pytest.param(score_sde, ["--sampling.sampler", "ddpm", "--sampling.steps", "10"], marks=pytest.mark.slow),
    ],
)
def test_known_pixels_stay_where_an_image_is_inpainted(module, sampling):
    stage, params, extra = conditional_stage(module, module.__name__.split(".")[-1], "--sampling.mask", "right", *sampling)
    rows = picture("inpainted", stage, params, extra)
    np.testing.assert_array_equal(rows[:, 1, :, 4:], 0)
    known = np.broadcast_to(rows[:, :1, :, :4], rows[:, 2:, :, :4].shape)
    np.testing.assert_allclose(rows[:, 2:, :, :4], known, atol=1e-5)
    assert np.abs(rows[:, 2:, :, 4:] - rows[:, :1, :, 4:]).max() > 0.1


@pytest.mark.parametrize("module", [edm, pytest.param(latent_diffusion, marks=pytest.mark.slow)])
def test_an_image_edited_from_little_noise_is_near(module):
    name = module.__name__.split(".")[-1]

    def distance(level):
        flags = ["--sampling.edit-from", str(level), "--sampling.sampler", "euler", "--sampling.steps", "20"]
        stage, params, extra = conditional_stage(module, name, *flags)
        rows = picture("edited", stage, params, extra)
        return np.abs(rows[:, 2:] - rows[:, :1]).mean() if module is edm else np.abs(rows[:, 2] - rows[:, 3]).mean()

    assert distance(0.06) < 0.5 * distance(20.0)
    with pytest.raises(ValueError, match=r"edit_from=0.001: must be above"):
        distance(0.001)


@pytest.mark.slow
def test_a_cascade_edits_its_smallest_image():
    images = np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32)
    batch, found = {"image": images, "label": np.arange(8)}, {}
    for level in (0.06, 20.0):
        flags = ["--sampling.edit-from", str(level), "--sampling.samplers", "euler", "dpm", "--sampling.steps-each", "20", "2"]
        base, _ = stages(cascade, "cascade", *flags)
        params, extra = tiny.fresh(base)
        shown = np.asarray(jax.jit(base.on_request["edited"])(params, extra, jax.random.key(0), batch)).reshape(8, 8, 4, 4, 1)
        np.testing.assert_allclose(shown[:, 0], images.reshape(8, 4, 2, 4, 2, 1).mean((2, 4)), atol=1e-6)
        found[level] = np.abs(shown[:, 2:] - shown[:, :1]).mean()
    assert found[0.06] < 0.5 * found[20.0]


def test_masks_take_out_what_they_say():
    assert mask_of("center", 4, 4)[0, :, :, 0].astype(int).tolist() == [[0] * 4, [0, 1, 1, 0], [0, 1, 1, 0], [0] * 4]
    assert mask_of("top", 2, 3)[0, :, :, 0].tolist() == [[True] * 3, [False] * 3]
    assert mask_of("right", 1, 4)[0, :, :, 0].tolist() == [[False, False, True, True]]


def test_a_smaller_pixel_is_taken_out_with_any_of_its_parts():
    assert smaller_mask(mask_of("center", 8, 8), 4, 4)[0, :, :, 0].sum() == 4
    assert smaller_mask(mask_of("center", 4, 8), 2, 2)[0, :, :, 0].tolist() == [[True, True]] * 2
    assert smaller_mask(mask_of("left", 4, 8), 1, 4)[0, :, :, 0].tolist() == [[True, True, False, False]]


def test_latents_whose_pixels_are_known_are_put_in():
    """By a decoder that shows a latent two places further right, so that known ones are seen in the hole."""
    assert latent_mask(mask_of("center", 16, 16), 8, 8)[0, :, :, 0].sum() == 36  # 4 x 4 and all around
    assert latent_mask(mask_of("center", 16, 16), 4, 4)[0, :, :, 0].sum() == 4  # all around, nothing would be known
    assert latent_mask(mask_of("right", 4, 8), 2, 4)[0, :, :, 0].tolist() == [[False, True, True, True]] * 2
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)), jnp.float32)

    def encode(params, extra, x):
        return x.reshape(len(x), 4, 2, 4, 2, 1).mean((2, 4))

    def decode(params, extra, z):
        return jnp.roll(z, 2, 2).repeat(2, 1).repeat(2, 2)

    options = DiffusionSampling(Euler(4), edit=Editing("right"))
    pictures = edits(
        options, lambda *_: lambda x, sigma: jnp.full_like(x, 0.25), NoiseLevels(0.01, 10.0).discretize,
        lambda batch, keys: Request(), encode, decode,
    )  # fmt: skip
    rows = np.asarray(pictures["inpainted"](None, {}, jax.random.key(0), {"image": images})).reshape(8, 8, 8, 8, 1)
    z = np.asarray(encode(None, {}, images))
    for result in rows[:, 2:].swapaxes(0, 1):
        np.testing.assert_array_equal(result[:, :, :4], images[:, :, :4])
        np.testing.assert_allclose(result[:, ::2, 4], z[:, :, 0], atol=1e-5)
        np.testing.assert_allclose(result[:, :, 6:], 0.25, atol=1e-5)  # the latent beside the hole is made again


def test_a_hole_is_filled_with_the_mean_of_what_is_known():
    images = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (2, 4, 4, 3)), jnp.float32)
    found = mean_filled(images, mask_of("right", 4, 4))
    np.testing.assert_array_equal(found[:, :, :2], images[:, :, :2])
    np.testing.assert_allclose(found[:, 3, 3], images[:, :, :2].mean((1, 2)), rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "module, flags, as_of",
    [
        (ddpm, [], "large"),
        (ddpm, ["--sampling.resamplings", "2"], "large"),
        (ddpm, ["--learn-variance"], "small"),
        (edm, [], "small"),
    ],
)
def test_the_variance_of_an_edit_is_the_model_s_unless_learned(module, flags, as_of):
    """A denoiser says nothing of variances: the posterior's stands for a learned one."""
    batch = {"image": np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)).astype(np.float32)}
    found = {}
    for variance in ("auto", "small", "large"):
        how = ["--sampling.sampler", "ddpm", "--sampling.steps", "6", "--sampling.variance", variance, *flags]
        stage = stages(module, module.__name__.split(".")[-1], *how)[0]
        params, extra = tiny.fresh(stage)
        params = jax.tree.map(lambda v: v + 0.03, params)
        found[variance] = np.asarray(jax.jit(stage.on_request["inpainted"])(params, extra, jax.random.key(0), batch))
    np.testing.assert_array_equal(found["auto"], found[as_of])
    assert np.abs(found["small"] - found["large"]).max() > 1e-3


def test_samplers_that_do_not_edit_are_refused():
    stage = stages(score_sde, "score_sde")[0]
    params, extra = tiny.shapes_of(stage)
    with pytest.raises(ValueError, match=r"sampler=pc: does not edit; must be one of ddim"):
        picture("edited", stage, params, extra)
