"""Any diffusion model under any sampler, guidance and edit; and the options of sampling that are refused."""

from dataclasses import replace
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cascade, ddpm, edm, flow_matching, guided, improved_ddpm, latent_diffusion, ncsn, score_sde
from jgen import schedules, sigmas
from jgen.config import DiffusionSampling, Editing, changed
from jgen.config.samplers import DDPM, RK45, SAMPLERS, DPMSolver, Euler
from jgen.recipes import classifier as classifier_recipe
from jgen.recipes.diffusion import guided as guided_recipe
from jgen.recipes.diffusion import noisy_classifier
from jgen.recipes.diffusion.continuous import FLOW_LEVELS
from jgen.recipes.diffusion.editing import edits, latent_mask, mask_of, mean_filled, smaller_mask
from jgen.recipes.diffusion.guidance import Request
from jgen.recipes.diffusion.model import NoiseLevels, chain_levels, noise_chain
from jgen.recipes.diffusion.sampling import with_fixed_variance
from jgen.samplers import image_keys
from tests import tiny
from tests.tiny import conditional_stage, configured, shape_of, stages

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
        options, lambda *_: lambda x, sigma: jnp.full_like(x, 0.25), NoiseLevels(0.01, 10.0).of,
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


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(sampler="ddim", churn=1.0), "churn: no such sampling option"),
        (dict(sampler="dpm", churn_noise=1.1), "churn_noise: no such sampling option"),
        (dict(sampler="ddpm", eta=0.7), "eta: no such sampling option"),
        (dict(sampler="ddim", variance="small"), "variance: no such sampling option .did you mean bound_variance"),
        (dict(sampler="heun", order=3), "order: no such sampling option"),
        (dict(sampler="ddim", resamplings=3), "resamplings: no such sampling option"),
        (dict(sampler="heun", of="noise"), "of: no such sampling option"),
        (dict(sampler="rk45", steps=9), "steps: no such sampling option.*tolerance"),
        (dict(sampler="rk45", tolerance=0.0), "tolerance=0.0: must be above 0"),
        (dict(sampler="dpm_adaptive", tolerance=float("nan")), "tolerance=nan: must be a number above 0"),
        (dict(sampler="ddim", classifier_scale=-1.0), "classifier_scale=-1.0: must be at least 0"),
        (dict(sampler="dpm", tolerance=0.1), "tolerance: no such sampling option"),
        (dict(sampler="dpm_adaptive", grid="karras"), "grid: no such sampling option"),
        (dict(sampler="dpm", threshold=2.0), "threshold=2.0: must be from 0 to 1"),
        (dict(sampler="ddim", eta=-2.0), "eta=-2.0: must be from 0 to 1"),
        (dict(sampler="dpm", guidance_from=5.0, guidance_to=1.0), "guidance_from=5.0: must be below guidance_to=1.0"),
        (dict(sampler="dpm", sigma_min=1e6), "sigma_min=1000000.0: must be below"),
        (dict(sampler="dpm", grid="time", sigma_min=0.1), "sigma_min=0.1: grid=time goes down"),
        (dict(sampler="ddpm", steps=1), "steps=1: must be at least 2"),
        (dict(sampler="heum"), "sampler=heum: must be one of ddim, .*did you mean heun"),
        (dict(sampler="pc"), "sampler=pc: must be one of ddim"),
        (dict(guidance=float("inf")), "guidance=inf: must be a finite number"),
    ],
)
def test_options_without_effect_are_refused(options, says):
    """A sampler has its own options only, and every number is in its range."""
    with pytest.raises(ValueError, match=says):
        shape_of(tiny.stage(), **options)


def test_an_empty_interval_of_guidance_is_refused_guided_or_not():
    empty, says = dict(guidance_from=5.0, guidance_to=1.0), "guidance_from=5.0: must be below guidance_to=1.0"
    for sampler in ("ddim", "dpm"):
        with pytest.raises(ValueError, match=says):
            shape_of(tiny.stage(conditional=True, drop_label=0.1), sampler=sampler, guidance=2.0, **empty)
    for module, sampler in ((ddpm, "ddim"), (edm, "heun"), (score_sde, "pc"), (score_sde, "ode"), (ncsn, "annealed")):
        with pytest.raises(ValueError, match=says):
            shape_of(stages(module, module.__name__.split(".")[-1])[0], sampler=sampler, **empty)


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


@pytest.mark.parametrize("module", [*GUIDED, ncsn], ids=lambda m: m.__name__.split(".")[-1])
def test_a_run_s_own_options_do_not_stand_in_the_way_of_another_sampler(module):
    """Presets have settings of their own for their samplers; to change the sampler alone is no error."""
    for name, preset in module.PRESETS.items():
        if name in ("imagenet64", "imagenet256", "cifar10", "fashion_mnist"):  # the settings of sampling, on a small model
            flags = ["--condition", "class"] if module is latent_diffusion else []
            config = replace(configured(module, module.__name__.split(".")[-1], *flags), sampling=preset.sampling)
            if module is cascade:
                config = tiny.with_option(config, "objective", preset.cascade.objective)
            if hasattr(config, "chain"):
                config = tiny.with_option(config, "diffusion_steps", preset.chain.diffusion_steps)
            stage = module.build(config).stages[-1]
            alone = {"steps": 3, "steps_each": ()} if module is cascade else {}
            shape_of(stage, sampler="heun", **alone)


def test_each_stage_of_a_cascade_has_a_sampler_of_its_own():
    _, last = stages(cascade, "cascade")
    assert shape_of(last, samplers=("ddpm", "dpm")) == (3, 8, 8, 1)
    assert shape_of(last, sampler="ddpm", samplers=("ddpm", "dpm"), variance="large") == (3, 8, 8, 1)
    assert shape_of(last, samplers=("rk45", "dpm"), steps_each=(9, 4)) == (3, 8, 8, 1)
    for samplers in (("dpm", "dpm"), ("ddpm", "dpm")):
        with pytest.raises(ValueError, match=r"eta: no such sampling option"):
            shape_of(last, samplers=samplers, eta=0.5)
        with pytest.raises(ValueError, match=rf"sampler=ddim: has no effect beside samplers={' '.join(samplers)}"):
            shape_of(last, sampler="ddim", samplers=samplers, eta=0.5)
    # The options are those of the sampler that is named, for the stages that have it.
    assert shape_of(last, sampler="ddim", samplers=("dpm", "ddim"), eta=0.5) == (3, 8, 8, 1)
    with pytest.raises(ValueError, match=r"sampler=heun: has no effect beside samplers=ddim ddim"):
        shape_of(last, samplers=("ddim", "ddim"), sampler="heun")
    with pytest.raises(ValueError, match=r"steps=7: has no effect beside steps_each=4 4"):
        shape_of(last, steps_each=(4, 4), steps=7)
    with pytest.raises(ValueError, match=r"steps_each: 1 for super_8; ddpm takes from 2 to 40"):
        shape_of(last, samplers=("dpm", "ddpm"), steps_each=(5, 1))
    with pytest.raises(ValueError, match=r"steps_each=\(9, 9\): rk45 choose their own steps"):
        shape_of(last, samplers=("rk45", "rk45"), steps_each=(9, 9))
    with pytest.raises(ValueError, match=r"samplers: 1 given, for the 2 stages base, super_8"):
        shape_of(last, samplers=("ddpm",))
    with pytest.raises(ValueError, match=r"steps_each: 3 given, for the 2 stages"):
        shape_of(last, steps_each=(1, 2, 3))
    with pytest.raises(ValueError, match=r"sampler=pc: must be one of ddim"):
        shape_of(last, samplers=("dpm", "pc"))


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
    """Of the sub-VP process the least is 1e-4, whose alpha_bar is 1 in float32."""
    stage, params, extra = conditional_stage(score_sde, "score_sde", "--sde", "subvp")
    options = changed(stage.options, {"sampler": "ddim", "steps": 3})
    assert np.isfinite(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params)).all()


def test_adaptive_samplers_end_at_the_least_level_whatever_the_steps():
    np.testing.assert_allclose(FLOW_LEVELS.of(RK45()), [200.0, 0.01, 0.0])
    with pytest.raises(ValueError, match="grid: no such sampling option"):
        shape_of(stages(flow_matching, "flow_matching")[0], sampler="rk45", grid="time")
    assert shape_of(stages(score_sde, "score_sde")[0], sampler="ddim", grid="karras") == (3, 8, 8, 1)


def test_options_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"threshold=0.9: is for pixels"):
        shape_of(stages(latent_diffusion, "latent_diffusion")[1], threshold=0.9)
    with pytest.raises(ValueError, match=r"snr: no such sampling option"):
        shape_of(stages(score_sde, "score_sde")[0], sampler="heun", snr=0.2)
    with pytest.raises(ValueError, match=r"steps: no such sampling option .did you mean step_size, steps_each"):
        shape_of(stages(ncsn, "ncsn")[0], steps=7)
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(stages(ncsn, "ncsn")[0], guidance=2.0)
    for module, sampler in ((score_sde, "pc"), (score_sde, "ode"), (ncsn, "annealed")):
        with pytest.raises(ValueError, match=rf"threshold=0.9: {sampler} has no clean images to scale"):
            shape_of(stages(module, module.__name__.split(".")[-1])[0], sampler=sampler, threshold=0.9)
    with pytest.raises(ValueError, match=r"grid=time: this model has no times of its own"):
        shape_of(stages(edm, "edm")[0], grid="time")
    stage = stages(score_sde, "score_sde")[0]
    params, extra = tiny.shapes_of(stage)
    with pytest.raises(ValueError, match=r"sampler=pc: does not edit; must be one of ddim"):
        picture("edited", stage, params, extra)


def test_guidance_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(tiny.stage(), guidance=2.0)
    with pytest.raises(ValueError, match=r"guidance=2.0: the model was trained with all labels"):
        shape_of(tiny.stage(conditional=True), guidance=2.0)
    with pytest.raises(ValueError, match=r"drop_label=0.1: only a conditional model"):
        tiny.stage(drop_label=0.1)
    with pytest.raises(ValueError, match=r"label=10: must be from 0 to 9"):
        shape_of(tiny.stage(conditional=True, drop_label=0.1), label=10)
    first, second = stages(guided, "guided")
    with pytest.raises(ValueError, match="the classifier is not trained yet"):
        shape_of(first, classifier_scale=1.0)
    for sampler in ("ddim", "heun"):
        assert shape_of(second, classifier_scale=1.0, sampler=sampler) == (3, 8, 8, 1)


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
    assert chain_levels(chain).of(DPMSolver(5, sigma_min=0.1))[-2] == pytest.approx(0.1)
    grid = chain_levels(chain).of(DPMSolver(5, grid="time"))
    assert grid[0] == pytest.approx(200)  # an image is gone there; the chain itself ends at 20,000
    assert grid[-2:] == pytest.approx([chain.sigma[0], 0])
    np.testing.assert_allclose(np.diff(sigmas.time_at(chain, grid[:-1]), 2), 0, atol=1e-9)
    whole = sigmas.of_schedule(chain, 100)
    np.testing.assert_allclose(whole[:-1], chain.sigma[::-1])


def test_steps_that_cannot_be_are_refused():
    for sampler in ("ddim", "dpm"):
        with pytest.raises(ValueError, match="steps=0"):
            shape_of(tiny.stage(), sampler=sampler, steps=0)
    with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
        shape_of(tiny.stage(), steps=41)
    with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
        shape_of(tiny.stage(), sampler="dpm", steps=41)
    for sampler in ("ddim", "heun"):
        stage = tiny.stage(sampling__sampler=sampler, sampling__steps=41)
        params, extra = tiny.shapes_of(stage)
        with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
            jax.eval_shape(stage.on_request["edited"], params, extra, jax.random.key(0), {"image": jnp.zeros((8, 8, 8, 1))})
