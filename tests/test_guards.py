"""The record of every tiny experiment before the code was rebuilt: its first steps, its samples, and its run's settings."""

import json

import jax
import numpy as np
import pytest

from jgen.config import from_dict, to_dict
from jgen.config.migrate import migrated
from jgen.data import Pipeline
from jgen.sharding import make_mesh
from jgen.train.compiled import compile_stage
from jgen.train.draw import draw
from jgen.train.stage import first_batch
from tests import tiny

GUARDS = json.loads((tiny.ROOT / "tests" / "guards.json").read_text())
"""{experiment: {"stages": {stage: {"metrics": first step's, "samples": some pixels}}, "config": its config.json}}."""
MESH = make_mesh()
QUICK = ("ddpm", "gan", "pixelcnn", "vae")


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in GUARDS])
def test_steps_and_samples_are_as_before(name):
    """Close rather than equal, since other processors round otherwise."""
    earlier = None
    for stage in tiny.module(name).build(tiny.parsed(name)).stages:
        compiled, source = compile_stage(stage, MESH, earlier), stage.open_source()
        state = compiled.create(jax.random.key(1), first_batch(stage, source), earlier)
        batches = Pipeline(source, stage.data, 0, MESH).batches()
        guard = GUARDS[name]["stages"][stage.name]
        for step in range(3):
            state, metrics = compiled.step(state, jax.random.key(0), next(batches))
            if step == 0:
                for key, value in guard["metrics"].items():
                    np.testing.assert_allclose(float(metrics[key]), value, rtol=1e-3, atol=1e-5, err_msg=key)
        if stage.sample is not None:
            images = draw(stage, state.averaged, state.extra, MESH, num=4, seed=5, batch=4)
            pixels = images.reshape(-1)[:: max(1, images.size // 5)][:5]
            np.testing.assert_allclose(pixels, guard["samples"], atol=0.05)
        earlier = (state.averaged, state.extra)


@pytest.mark.parametrize("name", GUARDS)
def test_settings_of_earlier_runs_are_brought_into_today_s_form(name):
    """Those of the tiny runs that an earlier version wrote are today's, but for what a run itself fills in."""
    stored = migrated(GUARDS[name]["config"])
    module = tiny.module(name)
    config, own = from_dict(module.Config, stored["config"]), tiny.parsed(name, "--mesh.devices", "1")
    before, now = to_dict(config), to_dict(own)
    for part in (before, now):
        for filled in ("shape", "num_classes", "classes"):
            part["data"].pop(filled)
    if name == "cascade":  # an option without settings of its own was written as many times as there were stages
        before.pop("stages"), now.pop("stages")
    if "bound" in now.get("sampling", {}):  # its variance was the sampler's then
        before["sampling"]["bound"].pop("bound_variance"), now["sampling"]["bound"].pop("bound_variance")
    if "solver" in now.get("sampling", {}):  # which was written out then
        before["sampling"]["solver"].pop("variance", None), now["sampling"]["solver"].pop("variance", None)
    assert before == now


def test_options_of_samplers_are_given_their_new_names():
    stored = {"format": 2, "module": "experiments.ddpm", "config": {"sampling": {"solver": {"sampler": "dpm", "of": "noise"}}}}
    assert migrated(stored)["config"]["sampling"]["solver"] == {"sampler": "dpm", "parameterization": "noise"}


def test_runs_of_cs_gan_lose_the_options_that_logan_alone_has():
    move = {"move_steps": 3, "move_size": 0.01, "damping": 5.0, "moved": 0.8, "cost_weight": 3.0}
    for name, kept in (("csgan", ["move_steps", "move_size", "cost_weight"]), ("logan", list(move))):
        stored = {"format": 4, "module": f"experiments.{name}", "config": {"move": move}}
        assert list(migrated(stored)["config"]["move"]) == kept
