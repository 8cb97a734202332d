"""Tiny experiments are as they were before the code was rebuilt: first steps, samples, and a run's settings.

The experiments that are not quick are compared with their record in a process that tests/test_experiments.py runs.
"""

import jax
import pytest

from jgen.config import from_dict, to_dict
from jgen.config.migrate import migrated
from jgen.sharding import make_mesh
from jgen.train.compiled import compile_stage
from jgen.train.stage import first_batch
from tests import tiny
from tests.guarded import GUARDS, guarded

MESH = make_mesh()


@pytest.mark.parametrize("name", ("ddpm", "gan", "pixelcnn", "vae"))
def test_steps_and_samples_are_as_before(name):
    (stage,) = tiny.module(name).build(tiny.parsed(name)).stages
    compiled = compile_stage(stage, MESH)
    guarded(name, stage, compiled, compiled.create(jax.random.key(1), first_batch(stage, stage.open_source()), None), MESH)


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
