"""What is measured of diffusion models beside their scores: bounds, inversion, agreement with what was asked for."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import guided
from jgen.config import DataConfig
from jgen.data import open_source
from jgen.objectives import diffusion, vlb
from jgen.recipes.diffusion.model import noise_chain
from jgen.recipes.evaluation.agreement import agreement
from jgen.samplers import clip
from jgen.samplers.common import shorten
from tests import tiny
from tests.tiny import shape_of, stages


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
