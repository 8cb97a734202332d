"""Latent diffusion: its forms, captions, first stages and priors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import latent_diffusion
from jgen.config import changed
from jgen.data import open_source, resolve
from jgen.metrics.lpips import open_lpips
from jgen.recipes.autoencoders.first_stage import first_stage, reconstructor
from jgen.samplers import image_keys
from jgen.train.stage import batch_shapes, state_shapes
from tests import tiny
from tests.tiny import configured, shape_of, stages

GLYPHS = ["--data.name", "glyphs", "--data.resolution", "16", "--data.channels", "3"]


@pytest.mark.parametrize(
    "flags", [["--first", "vq", "--prior", "dit", "--width", "16", "--depth", "1"], ["--condition", "class"]]
)
def test_latent_diffusion_in_its_forms(flags):
    _, second = stages(latent_diffusion, "latent_diffusion", *flags)
    options = {"guidance": 2.0} if "class" in flags else {}
    assert shape_of(second, **options) == (3, 8, 8, 1)


@pytest.mark.slow
def test_latent_diffusion_of_captions():
    _, second = stages(latent_diffusion, "latent_diffusion", *GLYPHS, "--condition", "text")
    assert shape_of(second, guidance=3.0, prompt="a red A on blue") == (3, 16, 16, 3)
    assert batch_shapes(second)["caption"].shape == (second.data.batch_size, 48)  # what a dry run takes for a batch
    with pytest.raises(ValueError, match="prompt: 60 bytes long; captions of glyphs have at most 48"):
        shape_of(second, prompt="a" * 60)
    dit = ["--prior", "dit", "--width", "16", "--depth", "1"]
    _, other = stages(latent_diffusion, "latent_diffusion", *GLYPHS, "--condition", "text", *dit)
    params, extra = tiny.fresh(other)
    params = jax.tree.map(lambda v: v + 0.02, params)

    def draw(prompt):
        options = changed(other.options, {"prompt": prompt, "steps": 3})
        return jax.jit(lambda p, e: other.sample(p, e, image_keys(0, 2), options))(params, extra)

    assert np.abs(draw("a red A on blue") - draw("a green B on black")).max() > 1e-4
    _, plain = stages(latent_diffusion, "latent_diffusion")
    with pytest.raises(ValueError, match="prompt=a: this model has no captions"):
        shape_of(plain, prompt="a")
    with pytest.raises(ValueError, match="condition=text: digits has no captions"):
        stages(latent_diffusion, "latent_diffusion", "--condition", "text")


def test_a_perceptual_term_is_lpips_where_its_files_are_given(tmp_path):
    files = tiny.lpips_files(tmp_path)
    distance, weights = open_lpips(*files)
    flags = ["--perceptual-trunk", files[0], "--perceptual-heads", files[1]]
    config = configured(latent_diffusion, "latent_diffusion", *GLYPHS, "--adversarial", "0", "--perceptual", "2", *flags)
    stage = latent_diffusion.build(config).stages[0]
    reconstruct = reconstructor(config.first, first_stage(config.first, resolve(config.data)))
    shapes, extra = tiny.shapes_of(stage)
    random = np.random.default_rng(0)
    net = jax.tree.map(lambda s: 0.1 * random.normal(size=s.shape).astype(np.float32), shapes["net"])
    x = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3), minval=-1)

    @jax.jit
    def measured(params, key, x):
        value = stage.validate(params, extra, key, {"image": x})[1][1]["reconstruction"]
        return value, reconstruct(params["net"], x, key)[0]

    value, out = measured({"net": net, "judge": weights}, jax.random.key(2), x)
    expected = np.mean(np.abs(x - out)) + 2 * np.mean(distance(weights, x, out))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert jax.tree.structure(shapes["judge"]) == jax.tree.structure(weights)
    with pytest.raises(ValueError, match=r"perceptual=0.0: must be above 0"):
        stages(latent_diffusion, "latent_diffusion", *flags)


def test_a_first_stage_of_another_size_is_refused():
    first, second = stages(latent_diffusion, "latent_diffusion")
    other = stages(latent_diffusion, "latent_diffusion", "--latent-channels", "2")[0]
    earlier = tiny.shapes_of(other)
    with pytest.raises(ValueError, match="first=kl, latents of .*: not the autoencoder that the prior begins from"):
        state_shapes(second, earlier)
    state = state_shapes(second, tiny.shapes_of(first))
    assert set(state.params) == {"net", "critic", "prior"}


@pytest.mark.slow
@pytest.mark.parametrize("prior", ["dit", "unet"])
def test_a_prior_learns_its_variance(prior):
    """As DiT does: its loss has the bound's part, and sampling heeds what was learned."""
    stage = stages(latent_diffusion, "latent_diffusion", "--prior", prior, "--condition", "class", "--learn-variance")[1]
    random = np.random.default_rng(0)
    params, extra = tiny.fresh(stage)
    params = tiny.moved(params, 0.1)
    batch = {"image": random.uniform(-1, 1, (4, 8, 8, 1)).astype(np.float32), "label": np.arange(4)}
    assert jax.jit(stage.phases[0].loss)(params, extra, jax.random.key(1), batch)[1][1]["vb"] > 0

    def draw(variance):
        options = changed(stage.options, {"sampler": "ddpm", "steps": 5, "variance": variance})
        return np.asarray(jax.jit(lambda p, e: stage.sample(p, e, image_keys(0, 2), options))(params, extra))

    assert np.abs(draw("learned_range") - draw("small")).max() > 1e-4


def test_a_learned_variance_of_latents_is_for_priors_that_have_one():
    learned = stages(latent_diffusion, "latent_diffusion", "--learn-variance")[1]
    assert shape_of(learned, sampler="ddpm", variance="learned_range") == (3, 8, 8, 1)
    plain = stages(latent_diffusion, "latent_diffusion")[1]
    with pytest.raises(ValueError, match="variance=learned_range"):
        shape_of(plain, sampler="ddpm", variance="learned_range")


@pytest.mark.slow
def test_pixels_count_by_their_absolute_or_squared_difference():
    random = np.random.default_rng(0)
    losses = []
    for kind in ("l1", "l2"):
        stage = stages(latent_diffusion, "latent_diffusion", "--adversarial", "0", "--kl-weight", "0", "--pixel-loss", kind)[0]
        params, extra = tiny.fresh(stage)
        params = jax.tree.map(jnp.zeros_like, params)  # gives back zeros
        x = random.choice([-0.5, 0.5], (2, 8, 8, 1)).astype(np.float32)
        losses.append(float(stage.validate(params, extra, jax.random.key(0), {"image": x})[0]))
    np.testing.assert_allclose(losses, [0.5, 0.25], rtol=1e-5)


@pytest.mark.slow
def test_a_model_of_captions_says_how_often_they_are_obeyed():
    _, second = stages(latent_diffusion, "latent_diffusion", *GLYPHS, "--condition", "text")
    params, extra = tiny.fresh(second)
    source = open_source(second.data)
    batch = {k: jnp.stack([jnp.asarray(source[i][k]) for i in range(4)]) for k in source[0]}
    batch["image"] = batch["image"] / 127.5 - 1
    found = second.evaluate(params, extra, jax.random.key(0), iter([batch] * 2), 2)
    assert list(found)[:2] == ["loss", "agreement: class"]
    assert all(np.isfinite(v) for v in found.values())
    _, asking = stages(latent_diffusion, "latent_diffusion", *GLYPHS, "--condition", "text", "--sampling.prompt", "a red A")
    with pytest.raises(ValueError, match="prompt=a red A: the evaluation asks for what held-out images show"):
        asking.evaluate(params, extra, jax.random.key(0), iter([batch]), 1)
