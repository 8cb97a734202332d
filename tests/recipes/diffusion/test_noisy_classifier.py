"""Any model of pixels guided by the classifier of another run."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import (
    cascade,
    classifier,
    ddpm,
    edm,
    flow_matching,
    guided,
    improved_ddpm,
    latent_diffusion,
    ncsn,
    score_sde,
)
from jgen.app.load import load
from jgen.app.sampling import sample
from jgen.app.training import train
from jgen.config import changed
from jgen.config.cascade import filled
from jgen.data import resolve
from jgen.recipes.diffusion import cascade as cascade_recipe
from jgen.recipes.diffusion import guidance, noisy_classifier
from jgen.recipes.diffusion.cascade_stages import resolve_stages
from jgen.recipes.diffusion.guidance import Request
from jgen.recipes.diffusion.model import chain_model, noise_chain
from jgen.recipes.diffusion.sampling import guided_denoiser, guided_predictor
from jgen.samplers import image_keys
from jgen.train.draw import check_sampling
from tests import tiny
from tests.tiny import stages

LABEL = 7


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(*flags) -> the folder of a classifier of digits, trained for a few steps."""
    made = {}

    def of(*flags):
        if flags not in made:
            made[flags] = tmp_path_factory.mktemp("run")
            config = tiny.parsed("classifier", *flags)
            train("experiments.classifier", "digits", classifier.build, config, made[flags])
        return str(made[flags])

    return of


@pytest.fixture(scope="module")
def run(trained):
    return trained("--noisy")


def fresh(module, *flags):
    """The last stage of a model that takes no classes, and plausible weights of it."""
    stage = stages(module, module.__name__.split(".")[-1], *flags)[-1]
    params, extra = tiny.fresh(stage)
    return stage, tiny.moved(params, 0.05), extra


USUAL = [(ddpm, {"sampler": "ddpm", "steps": 20})]
LONGER = [
    (edm, {"sampler": "heun", "steps": 6}),
    (ddpm, {"sampler": "ddim", "steps": 20}),
    (ddpm, {"sampler": "rk45"}),
    (improved_ddpm, {"steps": 20}),
    (flow_matching, {"sampler": "dpm", "steps": 6}),
    (cascade, {"sampler": "dpm", "steps": 6}),
    (score_sde, {"sampler": "pc", "steps": 30}),
    (score_sde, {"sampler": "ode", "tolerance": 1e-2}),
    (score_sde, {"sampler": "dpm", "steps": 6}),
    (ncsn, {"sampler": "annealed", "steps_each": 5}),
    (ncsn, {"sampler": "dpm", "steps": 6}),
]


@pytest.mark.parametrize("module, how", [*USUAL, *(pytest.param(*case, marks=pytest.mark.slow) for case in LONGER)])
def test_a_classifier_guides_a_model_that_knows_no_classes(module, how, run, monkeypatch):
    """Images come nearer to the one that its log-probability points at, from whatever coordinates it is called."""
    stage, params, extra = fresh(module)
    wanted = jnp.asarray(np.random.default_rng(2).normal(size=(1, 8, 8, 1)), jnp.float32) / 8

    def by(noisy, weights, label):
        assert (noisy.classes, weights["head"]["kernel"].shape) == (10, (16, 10))

        return lambda x, sigma: jnp.sum(x * wanted, (1, 2, 3)) / (1 + sigma**2)

    monkeypatch.setattr(guidance, "class_log_prob", by)

    def near(scale):
        named = {"classifier": run, "label": LABEL, "classifier_scale": scale} if scale else {}
        options = changed(type(stage.options)(), {**how, **named})
        whole = stage.extra_for(extra, options)
        images = jax.jit(lambda p, e: stage.sample(p, e, image_keys(0, 8), options))(params, whole)
        assert np.isfinite(images).all()
        return float(jnp.mean(jnp.sum(images * wanted, (1, 2, 3))))

    assert near(3.0) > near(0.0) + 0.02


def log_prob_of_run(run, count):
    """log p(LABEL | x) by a run's classifier, of so many images."""
    noisy, _ = noisy_classifier.classifier_of_run(run)
    return noisy_classifier.class_log_prob(noisy, load(run).params["net"], jnp.full(count, LABEL))


def test_chains_and_levels_are_guided_alike(run):
    """A predictor at a step of a chain is guided as the denoiser at its level, which moves by scale sigma^2 gradient."""
    chain = noise_chain(tiny.config().chain)
    model = chain_model((8, 8, 1), lambda params, x, t, condition: jnp.sin(x), chain, "eps")
    options = changed(ddpm.Sampling(), {"classifier": run, "classifier_scale": 3.0})
    by = log_prob_of_run(run, 4)
    x = jnp.asarray(np.random.default_rng(1).normal(size=(4, 8, 8, 1)), jnp.float32)
    t = jnp.full(4, 11)
    sigma = jnp.full(4, chain.sigma[11], jnp.float32)

    @jax.jit
    def run_both(x):
        guided, plain = (guided_predictor(model, {}, Request(), options, b)(x, t) for b in (by, None))
        inside = x * (1 + sigma[0] ** 2) ** 0.5
        return guided, plain, [guided_denoiser(model, {}, Request(), options, b)(inside, sigma) for b in (by, None)]

    guided, plain, levels = run_both(x)
    moved = (levels[0] - levels[1]) / sigma[0] ** 2  # the gradient in the coordinates x, whose x_t is 1 / sqrt(1 + sigma^2)
    assert guided.guide is not None
    np.testing.assert_allclose(guided.guide / (1 + sigma[0] ** 2) ** 0.5, moved, rtol=1e-3, atol=1e-5)
    np.testing.assert_array_equal(guided.x0, plain.x0)
    assert np.abs(moved).max() > 1e-3


def of_size(run, monkeypatch, side):
    """Lets the run's classifier be one of images of another size."""
    found, stage = noisy_classifier.classifier_of_run(run)
    small = found._replace(shape=(side, side, 1))
    for module in (noisy_classifier, guidance, cascade_recipe):
        monkeypatch.setattr(module, "classifier_of_run", lambda folder: (small, stage))


def test_a_classifier_has_no_effect_where_an_image_is_gone(run):
    """Its own chain may end before: the linear one at 157."""
    by = log_prob_of_run(run, 2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 8, 1)), jnp.float32)
    sigma = jnp.array([190.0, 210.0])
    assert (np.asarray(jax.jit(by)(x * sigma[:, None, None, None], sigma)) != 0).tolist() == [True, False]


def test_a_cascade_s_classifier_guides_the_stage_whose_images_it_knows(run, monkeypatch):
    c = tiny.parsed("cascade")
    data, own = resolve(c.data), filled(c.stages, 2)
    found = cascade_recipe.Cascade(resolve_stages(c.cascade, c.network, c.chain, data, c.train, own), c.labels, data)
    options = changed(c.sampling, {"classifier": run, "classifier_scale": 5.0})
    for side, expected in ((8, [False, True]), (4, [True, False])):
        of_size(run, monkeypatch, side)
        by = [found.log_prob(i, options, {"classifier": {}}, jnp.zeros(2, int)) for i in range(2)]
        assert [each is not None for each in by] == expected
    of_size(run, monkeypatch, 5)
    with pytest.raises(ValueError, match="knows images of 5x5x1, and these are 4x4x1"):
        found.log_prob(0, options, {"classifier": {}}, None)


@pytest.mark.slow
def test_a_run_is_guided_from_the_command_line_s_options(tmp_path, run):
    config = tiny.config(train__steps=2)
    train("experiments.ddpm", "digits", ddpm.build, config, tmp_path / "model")
    options = changed(config.sampling, {"classifier": run, "classifier_scale": 2.0, "label": 3})
    sample(tmp_path / "model", options, 4, 0, 4, str(tmp_path / "guided.npz"))
    sample(tmp_path / "model", config.sampling, 4, 0, 4, str(tmp_path / "plain.npz"))
    guided, plain = (np.load(tmp_path / f"{name}.npz")["images"] for name in ("guided", "plain"))
    assert guided.shape == (4, 8, 8, 1)
    assert (guided != plain).any()


def refused(module, says, *flags, **how):
    stage = stages(module, module.__name__.split(".")[-1], *flags)[-1]
    with pytest.raises(ValueError, match=says):
        check_sampling(stage, changed(stage.options, how))


def test_classifiers_that_cannot_guide_are_refused(tmp_path, trained, run, monkeypatch):
    clean = trained()
    refused(ddpm, r"classifier=.*: knows clean images alone; train one with --noisy", classifier=clean, classifier_scale=1.0)
    refused(edm, r"classifier_scale=0: classifier=.* has no effect by it", classifier=run)
    refused(edm, r"classifier_scale=2.0: needs --classifier, a run of", classifier_scale=2.0)
    refused(ncsn, r"classifier=.*: no run there", classifier=str(tmp_path), classifier_scale=1.0)
    (tmp_path / "config.json").write_text((Path(run) / "config.json").read_text())
    refused(ncsn, r"classifier=.*: has no checkpoint yet", classifier=str(tmp_path), classifier_scale=1.0)
    (tmp_path / "config.json").unlink()
    refused(flow_matching, r"label=10: must be from 0 to 9", classifier=run, classifier_scale=1.0, label=10)
    refused(latent_diffusion, r"classifier=.*: is for pixels, and these are latents", classifier=run, classifier_scale=1.0)
    refused(ddpm, r"label=3: this model is not class-conditional", label=3)
    model = tmp_path / "model"
    train("experiments.ddpm", "digits", ddpm.build, tiny.config(train__steps=2), model)
    refused(ddpm, r"is a run of experiments.ddpm, not of", classifier=str(model), classifier_scale=1.0)
    of_size(run, monkeypatch, 4)
    refused(ddpm, r"classifier=.*: knows images of 4x4x1, and these are 8x8x1", classifier=run, classifier_scale=1.0)


ADM = ("--classifier-network", "adm", "--classifier-channels", "8", "16", "--classifier-depth", "1")


def test_adm_s_own_classifier_guides():
    _, second = stages(guided, "guided", *ADM)
    assert tiny.shape_of(second, classifier_scale=1.0, sampler="heun") == (3, 8, 8, 1)
    with pytest.raises(ValueError, match=r"network=adm: ADM's classifier takes the noise level of its images; say --noisy"):
        stages(classifier, "classifier", "--network", "adm")
    for widths in (("32", "40"), ("49", "98")):
        with pytest.raises(ValueError, match=r"channels=.*: of adm, all must be multiples of the first"):
            stages(classifier, "classifier", "--network", "adm", "--noisy", "--channels", *widths)


@pytest.mark.slow
def test_adm_s_own_classifier_learns():
    """As the paper's preset builds it: without labels dropped, so that it alone guides."""
    second = stages(guided, "guided", *ADM, "--drop-label", "0", "--sampling.guidance", "1", "--classifier-steps", "100")[1]
    params, extra = tiny.fresh(second)
    random = np.random.default_rng(0)
    images = np.repeat(random.choice([-1.0, 1.0], (10, 8, 8, 1)), 4, 0).astype(np.float32)
    batch = {"image": images, "label": np.arange(40) // 4}
    tx, loss = second.optimizers["classifier"], second.phases[0].loss

    @jax.jit
    def step(own, state, key):
        def value(own):
            return loss({**params, "classifier": own}, extra, key, batch)[0]

        found, grads = jax.value_and_grad(value)(own)
        updates, state = tx.update(grads, state, own)
        return jax.tree.map(jnp.add, own, updates), state, found

    own, losses = params["classifier"], []
    state = tx.init(own)
    for i in range(100):
        own, state, found = step(own, state, jax.random.key(i))
        losses.append(float(found))
    assert losses[0] == pytest.approx(np.log(10), abs=0.5)
    assert np.mean(losses[-10:]) < 0.8 * losses[0]
