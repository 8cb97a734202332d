"""What the diffusion experiments refuse, in one line each; and the curve of guidance."""

from dataclasses import replace
from functools import partial
from typing import get_args

import jax
import numpy as np
import pytest
import tyro

from experiments import cascade, ddpm, guided, latent_diffusion
from experiments._diffusion import schedule
from experiments._first_stage import first_stage, reconstructor
from experiments._sampling import chain_levels
from jgen import schedules, sigmas
from jgen.data import resolve
from jgen.metrics import by_steps, trade_off
from jgen.metrics.lpips import open_lpips
from jgen.metrics.record import Record
from jgen.samplers import image_keys
from tests import tiny

GLYPHS = ["--data.name", "glyphs", "--data.resolution", "16", "--data.channels", "3"]


def configured(module, name, *flags):
    return tyro.cli(module.Config, default=module.PRESETS["digits"], args=[*tiny.FLAGS[name], *flags])


def stages(module, name, *flags):
    return module.build(configured(module, name, *flags)).stages


def shape_of(stage, **options):
    """What sampling would give, without running it."""
    params, extra = jax.eval_shape(stage.init, jax.random.key(0))
    chosen = replace(stage.options, **options)
    return jax.eval_shape(lambda p, e: stage.sample(p, e, image_keys(0, 3), chosen), params, extra).shape


@pytest.mark.parametrize("sampler", get_args(ddpm.SamplerName))
def test_a_model_runs_under_any_sampler_and_guidance(sampler):
    stage = tiny.stage(conditional=True, drop_label=0.1)
    options = dict(sampler=sampler, steps=3, guidance=2.0, guidance_from=0.1, threshold=0.99)
    assert shape_of(stage, **options) == (3, 8, 8, 1)


@pytest.mark.parametrize("sampler", ["ddim", pytest.param("heun", marks=pytest.mark.slow)])
def test_guidance_acts_within_its_levels_alone(sampler):
    stage = tiny.stage(conditional=True, drop_label=0.1)
    random = np.random.default_rng(0)
    params, extra = jax.eval_shape(stage.init, jax.random.key(0))
    params = jax.tree.map(lambda s: 0.2 * random.normal(size=s.shape).astype(np.float32), params)

    def draw(**options):
        chosen = replace(stage.options, sampler=sampler, steps=3, label=1, **options)
        return np.asarray(jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), chosen))(params))

    plain = draw()
    np.testing.assert_allclose(draw(guidance=4.0, guidance_from=1e7), plain, atol=1e-5)
    assert np.abs(draw(guidance=4.0, guidance_from=1e-4) - plain).max() > 1e-3


def test_options_without_effect_are_refused():
    for sampler in ("ddim", "dpm"):
        with pytest.raises(ValueError, match=f"churn=1.0: {sampler} takes none, only heun, euler, dpm_2 do"):
            shape_of(tiny.stage(), sampler=sampler, churn=1.0)
        with pytest.raises(ValueError, match=r"threshold=2.0: must be a quantile"):
            shape_of(tiny.stage(), sampler=sampler, threshold=2.0)
    with pytest.raises(ValueError, match=r"threshold=0.9: is for pixels"):
        shape_of(stages(latent_diffusion, "latent_diffusion")[1], threshold=0.9)


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


def test_the_classifier_learns_the_noise_of_the_model_it_guides():
    for name in ("linear", "cosine"):
        config = replace(guided.PRESETS["digits"], schedule=name, diffusion_steps=100)
        own = schedule(guided.of_classifier(config))
        np.testing.assert_array_equal(own.alpha_bar, schedule(config).alpha_bar)


@pytest.mark.slow
def test_a_classifier_has_no_say_where_an_image_is_gone(monkeypatch):
    """At a cosine chain's last step DDIM would move x_0 by 20,000 times its gradient."""

    def moved(gone):
        monkeypatch.setattr(guided, "GONE", gone)
        stage = stages(guided, "guided", "--diffusion-steps", "1000")[1]
        params, extra = stage.init(jax.random.key(0))
        params = jax.tree.map(lambda v: v + 0.02, params)

        def draw(scale):
            options = guided.Sampling(steps=2, guidance=1.0, classifier_scale=scale, label=3)
            return jax.jit(lambda p: stage.sample(p, extra, image_keys(0, 2), options))(params)

        return np.abs(draw(1.0) - draw(0.0)).max()

    assert moved(guided.GONE) < 0.02
    assert moved(1e9) > 0.2


def test_noise_levels_follow_the_times_of_a_chain():
    chain = schedules.cosine(100)
    grid = chain_levels(ddpm.Sampling(sampler="dpm", steps=5, grid="time"), chain)
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


@pytest.mark.parametrize(
    "flags", [["--first", "vq", "--prior", "dit", "--width", "16", "--depth", "1"], ["--condition", "class"]]
)
def test_latent_diffusion_in_its_forms(flags):
    _, second = stages(latent_diffusion, "latent_diffusion", *flags)
    options = {"guidance": 2.0} if "class" in flags else {}
    assert shape_of(second, **options) == (3, 8, 8, 1)


def test_latent_diffusion_of_captions():
    _, second = stages(latent_diffusion, "latent_diffusion", *GLYPHS, "--condition", "text")
    assert shape_of(second, guidance=3.0, prompt="a red A on blue") == (3, 16, 16, 3)
    with pytest.raises(ValueError, match="prompt: 60 bytes long; captions of glyphs have at most 48"):
        shape_of(second, prompt="a" * 60)
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
    reconstruct = reconstructor(config, first_stage(replace(config, data=resolve(config.data))))
    shapes, extra = jax.eval_shape(stage.init, jax.random.key(0))
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
    earlier = jax.eval_shape(other.init, jax.random.key(0))
    with pytest.raises(ValueError, match="prior: latents of .* are not those of the autoencoder it begins from"):
        jax.eval_shape(second.create, jax.random.key(0), earlier)
    state = jax.eval_shape(second.create, jax.random.key(0), jax.eval_shape(first.init, jax.random.key(0)))
    assert set(state.params) == {"net", "critic", "prior"}


def test_a_cascade_must_fit_its_set():
    with pytest.raises(ValueError, match=r"sizes=\(3, 8\): each must divide the next"):
        stages(cascade, "cascade", "--sizes", "3", "8")
    base, last = stages(cascade, "cascade", "--base-steps", "9")
    assert (base.train.steps, last.train.steps) == (9, 4)
    assert shape_of(base) == (3, 4, 4, 1)
    assert shape_of(last, sampler="ddim") == (3, 8, 8, 1)
    with pytest.raises(ValueError, match="augment=2.0: must be from 0 to the 0.5"):
        shape_of(last, augment=2.0)
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(last, guidance=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["ddim", "dpm"])
def test_every_stage_of_a_cascade_is_guided(sampler):
    """Where all labels are the null label, guidance of any scale is none; where they are not, it is some."""
    _, last = stages(cascade, "cascade", "--conditional", "--drop-label", "0.1")
    params, extra = jax.jit(last.init)(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.05, params)  # the last layers begin at 0, and would hide the label

    @partial(jax.jit, static_argnums=1)
    def draw(params, scale):
        return last.sample(params, extra, image_keys(0, 2), replace(last.options, sampler=sampler, guidance=scale, label=3))

    plain, guided = draw(params, 1.0), draw(params, 4.0)
    assert np.abs(plain - guided).max() > 1e-3
    for player in params:
        table = params[player]["label_emb"]["embedding"]
        params[player]["label_emb"]["embedding"] = table.at[3].set(table[10])
    np.testing.assert_allclose(draw(params, 1.0), draw(params, 4.0), atol=1e-4)


def test_min_snr_changes_the_loss_and_nothing_else():
    config = tiny.config()
    config = replace(config, data=resolve(config.data))
    plain, weighed = (ddpm.simple_objective(replace(config, min_snr=g)) for g in (0.0, 5.0))
    batch = {"image": jax.random.normal(jax.random.key(0), (256, 8, 8, 1))}
    apply = lambda params, x, t, label, **_: 0.1 * x  # noqa: E731
    values = [f(apply)({"net": {}}, {}, jax.random.key(1), batch)[0] for f in (plain, weighed)]
    assert 0 < values[1] < values[0]


def test_the_trade_off_is_drawn_from_records(tmp_path):
    rows = [
        Record(f"{m} at guidance={g}", v, {}, {})
        for g, values in ((3.0, (0.9, 0.3)), (1.0, (0.5, 0.8)))
        for m, v in zip(("precision", "recall"), values)
    ]
    found = trade_off.curves(rows)["guidance"]
    np.testing.assert_array_equal(found["value"], [1, 3])
    np.testing.assert_array_equal(found["recall"], [0.8, 0.3])
    trade_off.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="fd: no such measure; there are precision, recall"):
        trade_off.plot(rows, tmp_path / "x.png", x="fd")
    with pytest.raises(ValueError, match="no record is named"):
        trade_off.curves([Record("fd", 1.0, {}, {})])


def test_a_score_over_steps_is_drawn_a_line_a_sampler(tmp_path):
    def record(steps, value, sampler="dpm", seed=0, **more):
        sampling = {"sampler": sampler, "steps": steps, "eta": 0.0, "order": 2, **more}
        return Record("fd_x", value, {"num": 10}, {"run": "r", "step": 1, "seed": seed, "sampling": sampling})

    rows = [record(20, 0.2), record(10, 0.3), record(10, 0.4, order=3), record(50, 0.1, "ddim")]
    found = {"dpm, order 2": [(10, 0.3), (20, 0.2)], "dpm, order 3": [(10, 0.4)], "ddim, order 2": [(50, 0.1)]}
    assert by_steps.lines(rows) == found
    by_steps.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for bad, message in [
        (rows[:1], "a curve needs two or more"),
        ([rows[0], rows[0]], "dpm, 20 steps: two scores of the same sampling"),
        ([rows[0], record(10, 0.3, seed=1)], "seed 0 against 1"),
        ([rows[0], Record("fd_x", 1.0, {"num": 10}, {"folder": "f"})], "tells no steps"),
        ([rows[0], Record("kid_x", 1.0, {"num": 10}, rows[1].subject)], "nothing to compare"),
    ]:
        with pytest.raises(ValueError, match=message):
            by_steps.plot(bad, tmp_path / "x.png")
