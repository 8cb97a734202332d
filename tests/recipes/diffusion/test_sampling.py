"""Any diffusion model under any sampler and guidance."""

from functools import lru_cache

import jax
import numpy as np
import pytest

from experiments import cascade, ddpm, edm, flow_matching, guided, improved_ddpm, latent_diffusion, ncsn, score_sde
from jgen import schedules, sigmas
from jgen.config import changed
from jgen.config.samplers import DDPM, RK45, SAMPLERS, DPMSolver, Euler
from jgen.recipes import classifier as classifier_recipe
from jgen.recipes.diffusion import guided as guided_recipe
from jgen.recipes.diffusion import noisy_classifier
from jgen.recipes.diffusion.continuous import FLOW_LEVELS
from jgen.recipes.diffusion.model import chain_levels, noise_chain
from jgen.recipes.diffusion.sampling import with_fixed_variance
from jgen.samplers import image_keys
from tests import tiny
from tests.tiny import conditional_stage, shape_of, stages

DENOISERS = [name for name, row in SAMPLERS.items() if row.coordinates in ("discrete", "continuous")]

GUIDED = (ddpm, improved_ddpm, guided, edm, flow_matching, score_sde, latent_diffusion, cascade)


PAIRS = [(m, s) for m in GUIDED for s in DENOISERS if m in (ddpm, edm) or s in ("ddim", "ddpm", "heun", "dpm_sde")]
"""Every sampler of a model with a chain and of one without; of the others each way to walk."""


def usual(module, sampler):
    """Whether the default tests run the pair."""
    return (module is ddpm and sampler in ("ddim", "heun", "dpm_sde")) or (module, sampler) in (
        (edm, "ddpm"),
        (score_sde, "ddpm"),
        (edm, "dpm_adaptive"),
    )


@pytest.mark.parametrize(
    "module, sampler",
    [
        pytest.param(m, s, id=f"{m.__name__.split('.')[-1]}-{s}", marks=[] if usual(m, s) else pytest.mark.slow)
        for m, s in PAIRS
    ],
)
def test_a_model_runs_under_any_sampler_and_guidance(module, sampler, weights):
    name = module.__name__.split(".")[-1]
    stage, params, extra = weights(module, name)
    changes: dict = dict(sampler=sampler, guidance=2.0, guidance_from=0.1, threshold=0.99)
    changes |= dict(tolerance=0.1) if SAMPLERS[sampler].adaptive else dict(steps=3)
    if module is latent_diffusion:
        changes["threshold"] = 0.0
    options = changed(type(stage.options)(), changes)
    images = jax.jit(lambda p, e: stage.sample(p, e, image_keys(0, 2), options))(params, extra)
    assert images.shape == (2, 8, 8, 1)
    assert np.isfinite(images).all()
    assert np.abs(images).max() <= 1
    assert np.abs(images[0] - images[1]).max() > 1e-4


@pytest.fixture(scope="module")
def weights():
    return lru_cache(conditional_stage)


@pytest.mark.parametrize("sampler", ["heun", "ddim", pytest.param("dpm_sde", marks=pytest.mark.slow)])
def test_scores_run_under_samplers_of_denoisers(sampler):
    stage = stages(ncsn, "ncsn")[0]
    params, extra = tiny.fresh(stage)
    options = changed(stage.options, {"sampler": sampler, "steps": 3})
    images = jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params)
    assert images.shape == (2, 8, 8, 1)
    assert np.isfinite(images).all()


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["pc", "ode"])
def test_scores_are_guided(sampler, weights):
    """Its own samplers know the class, and are guided within the requested levels."""
    stage, params, extra = weights(score_sde, "score_sde")

    def draw(**how):
        own = {"steps": 30} if sampler == "pc" else {"tolerance": 1e-2}
        options = changed(stage.options, {"sampler": sampler, **own, **how})
        return np.asarray(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params))

    plain, other, strong = draw(label=1), draw(label=2), draw(label=1, guidance=5.0)
    assert np.isfinite(strong).all()
    assert min(np.abs(plain - other).max(), np.abs(plain - strong).max()) > 1e-3
    np.testing.assert_allclose(draw(label=1, guidance=5.0, guidance_from=1e6), plain, atol=1e-3)


def test_ddim_of_a_denoiser_is_euler(weights):
    """Without noise of its own DDIM is the Euler method in x / sqrt(alpha_bar), so of EDM's levels it is `euler`."""
    stage, params, extra = weights(edm, "edm")
    found = []
    for name in ("ddim", "euler"):
        options = changed(stage.options, {"sampler": name, "steps": 4})
        found.append(jax.jit(lambda p, o=options: stage.sample(p, extra, image_keys(0, 2), o))(params))
    np.testing.assert_allclose(*found, atol=2e-5)


@pytest.mark.parametrize("sampler", ["ddim", pytest.param("heun", marks=pytest.mark.slow)])
def test_guidance_acts_within_its_levels_alone(sampler):
    stage = tiny.stage(conditional=True, drop_label=0.1)
    random = np.random.default_rng(0)
    params, extra = tiny.shapes_of(stage)
    params = jax.tree.map(lambda s: 0.2 * random.normal(size=s.shape).astype(np.float32), params)

    def draw(**options):
        chosen = changed(stage.options, {"sampler": sampler, "steps": 3, "label": 1, **options})
        return np.asarray(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), chosen))(params))

    plain = draw()
    np.testing.assert_allclose(draw(guidance=4.0, guidance_from=1e7), plain, atol=1e-5)
    assert np.abs(draw(guidance=4.0, guidance_from=1e-4) - plain).max() > 1e-3


@pytest.mark.parametrize("sampler", ["ddim", pytest.param("ddpm", marks=pytest.mark.slow)])
def test_samplers_of_chains_follow_requested_levels(sampler):
    """A grid or a least level makes a chain of those levels."""
    stage = tiny.stage()
    params, extra = tiny.fresh(stage)
    params = jax.tree.map(lambda v: v + 0.03, params)

    def draw(**how):
        options = changed(stage.options, {"sampler": sampler, "steps": 6, **how})
        return np.asarray(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params))

    own, other, cut = draw(), draw(grid="karras"), draw(grid="log_snr", sigma_min=0.1)
    assert own.shape == other.shape == cut.shape == (2, 8, 8, 1)
    assert all(np.isfinite(images).all() for images in (own, other, cut))
    assert min(np.abs(own - other).max(), np.abs(other - cut).max()) > 1e-3
    np.testing.assert_array_equal(draw(sigma_min=0.1), cut)  # log_snr is what suits a chain
    if sampler == "ddpm":  # whose variance, left open, is the model's there too
        np.testing.assert_array_equal(draw(grid="karras", variance="large"), other)
        assert np.abs(draw(grid="karras", variance="small") - other).max() > 1e-3


def test_a_variance_left_open_is_the_model_s_unless_learned():
    for given, own, expected in (
        ("auto", "large", "large"), ("auto", "learned_range", "small"), ("auto", "small", "small"),
        ("learned_range", "large", "small"), ("large", "small", "large"),
    ):  # fmt: skip
        assert with_fixed_variance(DDPM(7, variance=given), own) == DDPM(7, variance=expected)
    assert with_fixed_variance(Euler(7), "large") == Euler(7)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "heun"])
def test_a_classifier_has_a_say_within_its_levels_alone(sampler, weights):
    stage, params, extra = weights(guided, "guided")

    def draw(**how):
        options = changed(stage.options, {"sampler": sampler, "steps": 3, "guidance": 1.0, **how})
        return np.asarray(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params))

    plain = draw()
    np.testing.assert_allclose(draw(classifier_scale=9.0, guidance_from=1e7), plain, atol=1e-5)
    assert np.abs(draw(classifier_scale=9.0, guidance_from=1e-4) - plain).max() > 1e-3


def test_levels_that_float32_takes_for_none_are_sampled():
    """The least level of the sub-VP process is 1e-4, whose alpha_bar is 1 in float32."""
    stage, params, extra = conditional_stage(score_sde, "score_sde", "--sde", "subvp")
    options = changed(stage.options, {"sampler": "ddim", "steps": 3})
    assert np.isfinite(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params)).all()


def test_adaptive_samplers_end_at_the_least_level_whatever_the_steps():
    np.testing.assert_allclose(FLOW_LEVELS.discretize(RK45()), [200.0, 0.01, 0.0])
    with pytest.raises(ValueError, match="grid: no such sampling option"):
        shape_of(stages(flow_matching, "flow_matching")[0], sampler="rk45", grid="time")
    assert shape_of(stages(score_sde, "score_sde")[0], sampler="ddim", grid="karras") == (3, 8, 8, 1)


def test_the_classifier_learns_the_noise_of_the_model_it_guides(monkeypatch):
    guides, trained = [], []
    log_prob_of, stage_of = guided_recipe.log_prob_of, classifier_recipe.stage
    monkeypatch.setattr(guided_recipe, "log_prob_of", lambda model, own: guides.append((model, own)) or log_prob_of(model, own))
    monkeypatch.setattr(classifier_recipe, "stage", lambda *args: trained.append(args) or stage_of(*args))
    for name in ("linear", "cosine"):
        guides.clear(), trained.clear()
        stages(guided, "guided", "--schedule", name, "--diffusion-steps", "100")
        expected = schedules.named(name, 100).alpha_bar
        assert guides
        for model, own in guides:  # the chain of the model, and the one that the classifier takes an image's noise for
            np.testing.assert_array_equal(model.chain.alpha_bar, expected)
            np.testing.assert_array_equal(own({})[0].chain.alpha_bar, expected)
        ((config, chain, *_),) = trained
        assert config.noisy
        np.testing.assert_array_equal(noise_chain(chain).alpha_bar, expected)


@pytest.mark.slow
def test_a_classifier_has_no_say_where_an_image_is_gone(monkeypatch):
    """At a cosine chain's last step DDIM would move x_0 by 20,000 times its gradient."""

    def moved(gone):
        monkeypatch.setattr(noisy_classifier, "SIGMA_CUTOFF", gone)
        stage = stages(guided, "guided", "--diffusion-steps", "1000")[1]
        params, extra = tiny.fresh(stage)
        params = jax.tree.map(lambda v: v + 0.02, params)

        def draw(scale):
            options = changed(stage.options, {"steps": 2, "guidance": 1.0, "classifier_scale": scale, "label": 3})
            return jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params)

        return np.abs(draw(1.0) - draw(0.0)).max()

    assert moved(noisy_classifier.SIGMA_CUTOFF) < 0.02
    assert moved(1e9) > 0.2


def test_noise_levels_follow_the_times_of_a_chain():
    chain = schedules.cosine(100)
    assert chain_levels(chain).discretize(DPMSolver(5, sigma_min=0.1))[-2] == pytest.approx(0.1)
    grid = chain_levels(chain).discretize(DPMSolver(5, grid="time"))
    assert grid[0] == pytest.approx(200)  # an image is gone there; the chain itself ends at 20,000
    assert grid[-2:] == pytest.approx([chain.sigma[0], 0])
    np.testing.assert_allclose(np.diff(sigmas.time_at(chain, grid[:-1]), 2), 0, atol=1e-9)
    whole = sigmas.of_schedule(chain, 100)
    np.testing.assert_allclose(whole[:-1], chain.sigma[::-1])
