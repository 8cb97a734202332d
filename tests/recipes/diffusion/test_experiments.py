"""The diffusion experiments' own parts: first stages, captions, cascades, weightings, curves."""

import json
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from experiments import cascade, ddpm, guided, latent_diffusion
from jgen.config import DataConfig, OptimizerConfig, changed
from jgen.config import check as check_ranges
from jgen.data import open_source, resolve
from jgen.metrics import by_steps, trade_off
from jgen.metrics.lpips import open_lpips
from jgen.metrics.record import Record
from jgen.objectives import diffusion, vlb
from jgen.recipes.autoencoders.first_stage import first_stage, reconstructor
from jgen.recipes.common import adam
from jgen.recipes.diffusion.chain import chain_recipe, simple_objective
from jgen.recipes.diffusion.low_res import blurred
from jgen.recipes.diffusion.model import noise_chain
from jgen.recipes.evaluation.agreement import agreement
from jgen.samplers import clip, image_keys
from jgen.samplers.common import shorten
from jgen.sharding import make_mesh
from jgen.train.loop import check
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


def test_channels_that_the_norms_of_a_unet_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="channels=30, channel_mult=1: must be multiples of 7, as many as the norms have"):
        stages(ddpm, "ddpm", "--channels", "30")


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
    with pytest.raises(ValueError, match="num_heads=3: do not divide 8 channels, in stage super_8"):
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


def test_min_snr_changes_the_loss_and_nothing_else():
    config = tiny.config()
    recipe = chain_recipe(config.network, config.chain, config.labels, resolve(config.data), config.train, False)
    recipe = recipe._replace(apply=lambda params, x, t, condition, **_: 0.1 * x)
    batch = {"image": jax.random.normal(jax.random.key(0), (256, 8, 8, 1))}
    losses = (simple_objective(recipe, gamma, False)(True) for gamma in (0.0, 5.0))
    values = [loss({"net": {}}, {}, jax.random.key(1), batch)[0] for loss in losses]
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


def test_gradients_are_clipped_on_request():
    gradient = {"w": jnp.array([3.0, 4.0])}
    for norm, seen in ((1.0, 0.2), (0.0, 1.0)):
        tx = adam(OptimizerConfig(clip=norm), 10)
        _, (_, (moments, *_)) = tx.update(gradient, tx.init(gradient), gradient)
        np.testing.assert_allclose(moments.mu["w"], 0.1 * seen * gradient["w"], rtol=1e-6)
    with pytest.raises(ValueError, match=r"clip=-1.0: must be at least 0"):
        check_ranges(OptimizerConfig(clip=-1.0))


def test_a_score_over_steps_is_drawn_a_line_a_sampler(tmp_path):
    def record(steps, value, sampler="dpm", seed=0, run="r", **more):
        sampling = {"sampler": sampler, "steps": steps, "eta": 0.0, "order": 2, **more}
        return Record("fd_x", value, {"num": 10}, {"run": run, "step": 1, "seed": seed, "sampling": sampling})

    rows = [record(20, 0.2), record(10, 0.3), record(10, 0.4, order=3), record(50, 0.1, "ddim")]
    found = {"dpm, order 2": [(10, 0.3), (20, 0.2)], "dpm, order 3": [(10, 0.4)], "ddim, order 2": [(50, 0.1)]}
    assert by_steps.lines(rows) == found
    newer = record(30, 0.2, "ddim", run=str(Path("r").resolve()), churn=0.0)  # named otherwise, and with one more setting
    assert by_steps.lines([*rows, newer]) == {**found, "ddim, order 2": [(30, 0.2), (50, 0.1)]}
    by_steps.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for bad, message in [
        (rows[:1], "a curve needs two or more"),
        ([rows[0], rows[0]], "dpm, 20 steps: two scores of the same sampling"),
        ([rows[0], record(10, 0.3, seed=1)], "seed 0 against 1"),
        ([rows[0], record(10, 0.3, run="s")], "run r against s"),
        ([rows[0], Record("fd_x", 1.0, {"num": 10}, {"folder": "f"})], "tells no steps"),
        ([rows[0], Record("kid_x", 1.0, {"num": 10}, rows[1].subject)], "nothing to compare"),
    ]:
        with pytest.raises(ValueError, match=message):
            by_steps.plot(bad, tmp_path / "x.png")


@pytest.mark.slow
def test_ddim_takes_an_image_to_noise_and_back(tmp_path):
    """On a model that was trained for a moment: at 100 steps the round trip is good to 30 dB."""
    train = ["--train.steps", "150", "--train.save-every", "150", "--train.sample-every", "0"]
    run = ["--name", "./one", "--channels", "16", "--channel-mult", "1", "--head-channels", "0", *train]
    tiny.run("-m", "experiments.ddpm", *run, cwd=tmp_path)
    tiny.run("-m", "experiments.ddpm", "evaluate", "--run", "one", "--num", "64", cwd=tmp_path)
    (path,) = (tmp_path / "one").glob("evaluate-*.json")
    records = json.loads(path.read_text())["records"]
    assert next(r["value"] for r in records if r["metric"].startswith("psnr_db of DDIM there and back, 100")) >= 30


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


def test_agreement_counts_images_that_show_what_was_asked_for():
    data = DataConfig("glyphs", batch_size=16, resolution=32, channels=3)
    source = open_source(data)
    batches = [{k: jnp.stack([source[i + j][k] for j in range(16)]) for k in source[0] if k != "image"} for i in (0, 16)]
    for i, batch in zip((0, 16), batches):
        batch["image"] = jnp.stack([source[i + j]["image"] for j in range(16)]) / 127.5 - 1

    def measured(images):
        """A model whose images of the captions are these."""
        known = jnp.concatenate([b["caption"] for b in batches])

        def draw(params, extra, keys, requested):
            return params[jnp.argmax((requested[:, None] == known[None]).all(-1), 1)]

        return agreement(data, "caption", draw)(images, {}, jax.random.key(0), iter(batches), 2)

    true = jnp.concatenate([b["image"] for b in batches])
    found = measured(true)
    assert found["agreement: colour"] == found["agreement: ground"] == 1
    assert found["agreement: class"] > 0.8
    names = ["class", "colour", "ground", "all three"]
    assert list(found) == [f"{title}: {k}" for title in ("agreement", "agreement of held-out images") for k in names]
    assert all(found[f"agreement: {k}"] == found[f"agreement of held-out images: {k}"] for k in names)
    inverted = measured(-true)  # their letters can be read as before
    assert inverted["agreement: ground"] < 0.2
    assert inverted["agreement: all three"] < 0.1
    shuffled = measured(true[::-1])
    assert shuffled["agreement: class"] < 0.2
    assert shuffled["agreement of held-out images: class"] == found["agreement: class"]


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


@pytest.mark.slow
def test_the_bound_of_any_chain_s_model_is_evaluated_on_request():
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 256, (4, 8, 8, 1)) / 127.5 - 1, jnp.float32)

    def evaluated(**sampling):
        stage = tiny.stage(**{f"sampling__{k}": v for k, v in sampling.items()})
        params, extra = tiny.fresh(stage)
        return stage.evaluate(params, extra, jax.random.key(0), iter([{"image": x0}]), 1)

    plain, whole, few = evaluated(), evaluated(bound_steps=0, bound_variance="small"), evaluated(bound_steps=5)
    assert set(plain) < set(whole)
    assert all(whole[name] == pytest.approx(float(value), rel=1e-5) for name, value in plain.items())
    full, key = noise_chain(tiny.config().chain), jax.random.fold_in(jax.random.key(0), 0)
    noise = lambda t: jax.random.normal(jax.random.fold_in(key, t), x0.shape)  # noqa: E731
    # The network's last layer begins at zero: it predicts no noise.
    still = clip(diffusion.predictor(lambda x, t: jnp.zeros_like(x), full))
    for found, chain, variance in ((whole, full, "small"), (few, shorten(full, 5), "large")):
        own = vlb.bound(still, chain, x0, noise, variance)
        assert found["bits_per_dim_discrete_bound"] == pytest.approx(float(own.total.mean()), rel=1e-4)
        parts = sum(float(v) for k, v in found.items() if k.startswith("of it "))
        assert found["bits_per_dim_discrete_bound"] == pytest.approx(parts, rel=1e-5)
    for steps in (1, 41):
        with pytest.raises(ValueError, match=f"bound_steps={steps}: must be from 2 to 40, 0 for all"):
            evaluated(bound_steps=steps)
    with pytest.raises(ValueError, match="variance=learned_range"):
        evaluated(bound_steps=5, bound_variance="learned_range")


def test_the_variance_of_the_bound_is_chosen_whatever_the_sampler():
    """And of a guided model the bound is that of the labels' model, beside the curve over the scales."""
    shape_of(tiny.stage(), bound_variance="small", bound_steps=5)
    with pytest.raises(ValueError, match="variance: no such sampling option"):
        shape_of(tiny.stage(), variance="small")
    flags = ["--learn-variance", "--sampling.bound-steps", "4", "--sampling.bound-variance", "learned_range"]
    stage = stages(guided, "guided", *flags)[0]
    params, extra = tiny.fresh(stage)
    batch = {"image": jnp.zeros((4, 8, 8, 1)), "label": jnp.arange(4)}
    found = stage.evaluate(params, extra, jax.random.key(0), iter([batch]), 1)
    assert np.isfinite(found["bits_per_dim_discrete_bound"])
    assert "loss (mean of the rows below)" in found
