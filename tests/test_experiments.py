"""Every experiment, shrunk: it steps, saves, restores, and its next step is bit-equal. And its stages follow on."""

import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen.app.load import load
from jgen.app.training import _begin, train
from jgen.config import changed, differences, from_dict, to_dict
from jgen.config.migrate import GROUPS
from jgen.data import Pipeline
from jgen.data.known import resolve_or_known
from jgen.sharding import make_mesh
from jgen.train import Phase
from jgen.train.checkpoint import Checkpoints
from jgen.train.compiled import compile_stage
from jgen.train.loop import fit
from jgen.train.stage import Experiment, Stage, count, first_batch, restore, state_shapes
from tests import tiny
from tests.conftest import CACHE

MESH = make_mesh()


def shrunk(name):
    return tiny.module(name), tiny.parsed(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_every_preset_for_cpus_has_networks_that_fit_together(name):
    """By shapes alone; those for accelerators are compared with their table (tests/test_presets.py)."""
    module = tiny.module(name)
    for config in (config for preset, config in module.PRESETS.items() if tiny.for_cpus(name, preset)):
        stage = module.build(replace(config, data=resolve_or_known(config.data))).stages[-1]
        assert count(state_shapes(stage).params) > 1000


SHORTER = ("classifier", "ddpm", "gan", "pixelcnn", "vae")
"""Those that step in every run of the tests; all of them do in the process of their own below."""
STRICT = "error,ignore::DeprecationWarning,ignore::ResourceWarning,ignore::PendingDeprecationWarning"
"""Warnings as pyproject.toml has them for these tests."""


@pytest.mark.parametrize("name", SHORTER)
def test_an_experiment_steps_saves_restores_and_goes_on_bit_equal(name, tmp_path):
    module, config = shrunk(name)
    for stage in module.build(config).stages:
        compiled, key = compile_stage(stage, MESH), jax.random.key(0)
        batches = Pipeline(stage.open_source(), stage.data, 0, MESH).batches()
        state, first, second = (
            compiled.create(jax.random.key(1), first_batch(stage, stage.open_source()), None),
            next(batches),
            next(batches),
        )
        state, metrics = compiled.step(state, key, first)
        assert all(np.isfinite(v) for v in jax.tree.leaves(metrics))
        with Checkpoints(tmp_path / stage.name) as checkpoints:
            checkpoints.save(1, state)
            checkpoints.wait()
            step, restored = checkpoints.restore(compiled.shapes, compiled.shardings)
        assert step == 1
        ends = [compiled.step(s, key, second) for s in (state, restored)]
        jax.tree.map(np.testing.assert_array_equal, *ends)


@pytest.mark.slow
@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_an_experiment_is_alike_on_eight_devices_in_bfloat16_and_resumed_and_draws_image_i_by_seed_and_i(name, tmp_path):
    """And what it evaluates is finite.

    Sums are in another order, and Adam makes of a gradient of rounding errors a step of its whole rate, so games drift.
    """
    command = [tiny.ROOT / "tests" / "compared.py", tmp_path / "found.npz", name]
    cache = {"JAX_COMPILATION_CACHE_DIR": f"{CACHE}/xla", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2"}
    strict = {"JAX_NUMPY_RANK_PROMOTION": "raise", "PYTHONWARNINGS": STRICT}
    tiny.run(*command, cwd=tmp_path, env={**tiny.environment(8), **cache, **strict})
    found = np.load(tmp_path / "found.npz")
    parts = [key.removesuffix("/one") for key in found if key.endswith("/one")]
    assert len(parts) >= 2
    for key, values in found.items():
        assert not key.endswith("/unequal") or values == 0, key
        assert not key.endswith("/evaluated") or (values.size and np.isfinite(values).all()), key
    for part in parts:
        one, eight = found[f"{part}/one"], found[f"{part}/eight"]
        assert part.endswith("/extra") or np.nanstd(one) > 0, part
        if part.endswith("/losses"):
            np.testing.assert_allclose(eight[:3], one[:3], rtol=5e-3, atol=5e-3, err_msg=part)
        near = 5e-3 if part.endswith("/extra") else 3e-2
        np.testing.assert_allclose(eight, one, rtol=near, atol=near, err_msg=part)
    for part in (key.removesuffix("/bfloat16") for key in found if key.endswith("losses/bfloat16")):
        one, half = (np.nanmean(found[f"{part}/{how}"], 0) for how in ("one", "bfloat16"))
        assert not np.array_equal(found[f"{part}/one"], found[f"{part}/bfloat16"])  # the option has an effect
        # A generator's loss may be a mean of scores of both signs, smaller than each: the game's largest loss is the measure.
        size = np.nanmean(np.abs(found[f"{part}/one"]), 0).max()
        assert np.abs(half - one).max() <= 0.02 * size + 1e-3, part


@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_every_preset_survives_json_and_names_its_paper_target_and_cost(name):
    module = tiny.module(name)
    for preset in module.PRESETS.values():
        assert from_dict(type(preset), to_dict(preset)) == preset
        assert not differences(preset, preset)
    for word in ("arXiv", "minutes", "Target"):
        assert word in module.__doc__


def test_the_cifar10_preset_is_the_paper_network():
    from experiments import ddpm

    config = ddpm.PRESETS["cifar10"]
    config = replace(config, data=replace(config.data, shape=(32, 32, 3), num_classes=10))
    (stage,) = ddpm.build(config).stages
    params = tiny.shapes_of(stage)[0]
    millions = sum(np.prod(x.shape) for x in jax.tree.leaves(params)) / 1e6
    assert abs(millions - 35.7) < 0.1  # DDPM, appendix B
    assert (config.train.steps, config.data.batch_size, config.optimizer.learning_rate) == (800_000, 128, 2e-4)


def test_a_conditional_model_is_sampled_by_class_and_an_unconditional_one_refuses_it():
    from jgen.samplers import image_keys

    for conditional in (True, False):
        stage = tiny.stage(conditional=conditional)
        params = tiny.shapes_of(stage)[0]
        shape = jax.eval_shape(
            lambda p, stage=stage: stage.sample(p, {}, image_keys(0, 3), changed(stage.options, {"steps": 2})), params
        )
        assert shape.shape == (3, 8, 8, 1)
        match = "label=12: must be from 0 to 9" if conditional else "label=12: this model is not class-conditional"
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(
                lambda p, stage=stage: stage.sample(p, {}, image_keys(0, 3), changed(stage.options, {"label": 12})), params
            )


def two_stages(steps=3):
    """A first stage that learns a constant, and a second one that learns another beside the first, kept frozen."""
    config = tiny.config()
    data, training = replace(config.data, shape=(8, 8, 1)), replace(config.train, steps=steps, save_every=steps)

    def loss(player):
        def value(params, extra, key, batch):
            total = sum(jnp.sum(p) for p in params.values())
            return (total - jnp.mean(batch["image"])) ** 2 + jnp.sum(params[player] ** 2), (extra, {})

        return value

    def stage(name, player, init, begin=None):
        return Stage(
            name=name, data=data, train=training, init=init, begin=begin,
            phases=[Phase(player, loss(player))], optimizers={player: optax.sgd(0.1)},
            sample=lambda params, extra, keys, options: jnp.full((*keys.shape, 8, 8, 1), sum(map(jnp.sum, params.values()))),
        )  # fmt: skip

    first = stage("first", "a", lambda key, batch: ({"a": jnp.ones(2)}, {}))
    second = stage(
        "second", "b", lambda key, batch: ({"a": jnp.zeros(2), "b": jnp.ones(3)}, {}),
        begin=lambda params, extra, fresh, fresh_extra: ({**fresh, "a": params["a"]}, fresh_extra),
    )  # fmt: skip
    return Experiment([first, second])


def test_stages_follow_on_each_begun_from_what_the_last_one_made(tmp_path):
    experiment = two_stages()
    a = fit(experiment.stages[0], experiment.folder(tmp_path, experiment.stages[0]), MESH)
    earlier = (a.state.averaged, a.state.extra)
    b = fit(experiment.stages[1], experiment.folder(tmp_path, experiment.stages[1]), MESH, earlier)
    np.testing.assert_array_equal(b.state.params["a"], a.state.params["a"])  # frozen: a player without a phase
    assert not np.array_equal(b.state.params["b"], np.ones(3))
    assert (tmp_path / "first" / "checkpoints").is_dir()
    with pytest.raises(ValueError, match="of different names"):
        Experiment([experiment.stages[0]] * 2)


@pytest.mark.slow
def test_accepted_changes_that_do_not_fit_leave_a_run_as_it_was(tmp_path):
    """Another network than the checkpoints', another optimizer, or more steps of a stage that a later one was begun from."""
    from experiments import cascade

    def trained(*flags):
        train("experiments.cascade", "digits", cascade.build, tiny.configured(cascade, "cascade", *flags), run)

    run = tmp_path / "run"
    trained()
    kept = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    for flags, message in {
        ("--stages.1.channels", "16"): r"super_8/checkpoints/4: params/super_8/.* is \(.*\), but \(.*\) by these settings",
        ("--stages.0.objective", "hybrid"): "base/checkpoints/4: params/base/out_2/bias",
        ("--stages.0.steps", "6"): "super_8 was begun from base as it was after 4 of what are now 6 steps",
    }.items():
        with pytest.raises(ValueError, match=message):
            trained(*flags)
        assert kept == {path: path.stat().st_mtime_ns for path in kept}
    stage = cascade.build(tiny.configured(cascade, "cascade")).stages[0]
    other = replace(stage, optimizers={"base": optax.sgd(0.1)})
    with pytest.raises(ValueError, match="base/checkpoints/4: holds the state of another optimizer"):
        restore(other, run / "base" / "checkpoints", MESH)
    trained("--train.steps", "6", "--stages.0.steps", "4")
    assert load(run, MESH).step == 6


@pytest.mark.slow
def test_a_later_stage_can_begin_from_any_stage_of_a_finished_run(tmp_path):
    """The autoencoder of a finished run, for another prior; the run itself ends in a prior of another kind."""
    from experiments import latent_diffusion

    def configured(*flags):
        return tiny.parsed("latent_diffusion", "--adversarial", "0", *flags)

    config = configured()
    train("experiments.latent_diffusion", "digits", latent_diffusion.build, config, tmp_path / "one")
    other = ["--prior", "dit", "--width", "16", "--depth", "1", "--train.begin-from"]
    again = configured(*other, str(tmp_path / "one" / "autoencoder"))
    (stage,), earlier = _begin(latent_diffusion.build(again), again, MESH)
    state = compile_stage(stage, MESH, earlier).create(jax.random.key(9), first_batch(stage, stage.open_source()), earlier)
    first = load(tmp_path / "one", MESH, stage="autoencoder")
    assert (stage.name, first.stage.name) == ("diffusion", "autoencoder")
    jax.tree.map(np.testing.assert_array_equal, state.params["net"], first.params["net"])
    for flags in (["--latent-channels", "3"], ["--first", "vq"]):
        unlike = configured(*flags, "--train.begin-from", str(tmp_path / "one" / "autoencoder"))
        with pytest.raises(ValueError, match="not the autoencoder that the prior begins from"):
            train("experiments.latent_diffusion", "digits", latent_diffusion.build, unlike, tmp_path / "two")
    assert not (tmp_path / "two").exists()  # where the right settings may be given next
    with pytest.raises(ValueError, match="stage=nothing: .* has none of this name; there are autoencoder, diffusion"):
        load(tmp_path / "one", MESH, stage="nothing")


def test_a_stage_can_begin_from_an_earlier_run(tmp_path, monkeypatch):
    """train.begin_from takes the weights of another run: a single stage is tuned on."""
    from experiments import ddpm

    config = tiny.config(train__steps=2)
    monkeypatch.chdir(tmp_path)
    train("experiments.ddpm", "digits", ddpm.build, config, tmp_path / "one")
    stages, earlier = _begin(ddpm.build(config), replace(config, train=replace(config.train, begin_from="one")), MESH)
    assert [s.name for s in stages] == ["ddpm"]
    state = compile_stage(stages[0], MESH, earlier).create(
        jax.random.key(9), first_batch(stages[0], stages[0].open_source()), earlier
    )
    jax.tree.map(np.testing.assert_array_equal, state.params, earlier[0])
    assert int(state.step) == 0
    # Trained on, a stage keeps its state, but for what only the new settings need.
    growing = replace(
        stages[0], begin=lambda *given: pytest.fail("starts fresh"), init=lambda key, batch: (state.params, {"new": 1.0})
    )
    again = replace(ddpm.build(config), stages=[growing])
    (stage,), _ = _begin(again, replace(config, train=replace(config.train, begin_from="one")), MESH)
    assert stage.create(jax.random.key(9), {}, (earlier[0], {"old": 2.0})).extra == {"new": 1.0}
    with pytest.raises(ValueError, match="no run there"):
        _begin(ddpm.build(config), replace(config, train=replace(config.train, begin_from="none")), MESH)


@pytest.mark.slow
@pytest.mark.parametrize("form", [1, 2])
def test_a_run_of_before_a_setting_goes_on(tmp_path, monkeypatch, form):
    """A config.json without a field that came later stands for the field's default; options of sampling are checked."""
    monkeypatch.chdir(tmp_path)
    run = ["--name", "./one", *tiny.FLAGS["ddpm"], "--train.steps", "2"]
    tiny.run("-m", "experiments.ddpm", *run, cwd=tmp_path)
    path = tmp_path / "one" / "config.json"
    stored = json.loads(path.read_text())
    config = stored["config"]
    del config["learn_variance"], config["network"]["dropout"], config["sampling"]["solver"]["eta"]
    if form == 1:  # all options in one group, and one that was once a field of improved_ddpm's
        del stored["format"]
        flat = [config.pop(group) for group in ("network", "labels", "chain", "optimizer")]
        sampling = config["sampling"]
        groups = [sampling.pop(group) for group in ("solver", "guide", "edit", "bound")]
        config["sampling"] = {
            k: v for group in (sampling, *groups) for k, v in group.items() if k not in ("bound_variance", "clip_denoised")
        }
        known = " ".join(GROUPS["ddpm"].values()).split()  # and none of those that came later
        config.update({k: v for group in flat for k, v in group.items() if k in known}, evaluation_steps=0)
    path.write_text(json.dumps(stored))
    tiny.run("-m", "experiments.ddpm", "train", "--run", "one", cwd=tmp_path)
    for command in (["sample", "--picture", "edited"], ["evaluate"]):
        for how, message in (
            (["--sampler", "ddpm", "--eta", "0.5"], "--eta: is an option of --sampler ddim, not of ddpm"),
            (["--sampler", "ddim", "--eta", "1.5"], "eta=1.5: must be from 0 to 1"),
        ):
            done = tiny.run("-m", "experiments.ddpm", *command, "--run", "one", *how, cwd=tmp_path, check=False)
            assert (done.returncode, message in done.stderr) == (2, True)
