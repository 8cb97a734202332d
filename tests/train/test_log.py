"""The trackers of a run: TensorBoard and Weights & Biases are given scalars, rates and pictures alike."""

import sys
import types

import numpy as np
import optax
import pytest
from PIL import Image

from jgen.errors import UserError
from jgen.train import Phase
from jgen.train.log import Log, read
from jgen.train.rates import learning_rates, rated_adam
from jgen.train.tracker import Wandb
from jgen.train.watch import Watch
from tests import tiny


class _Run:
    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


QUICK = ("classifier", "ddpm", "gan", "vae")
SHORTER = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in tiny.EXPERIMENTS]


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package."""
    run = _Run()
    fake = types.SimpleNamespace(
        init=lambda **how: setattr(run, "how", how) or run, Image=lambda pixels: pixels.shape, Settings=dict
    )  # fmt: skip
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return run


def test_records_rates_and_pictures_go_to_both(tmp_path, wandb):
    stage = tiny.stage(train__steps=3)
    with Log(tmp_path, 0, 3, 8, wandb="project") as log:
        watch = Watch(stage, log, None)
        for step in (1, 2, 3):
            watch.see(step, {"loss": 0.5, "bad": float("nan"), "nonfinite": 0})
        watch.catch_up()
        log.picture(3, "samples", Image.fromarray(np.zeros((4, 6), np.uint8)))
    values = {name: value for _, each in wandb.logged for name, value in each.items()}
    assert values["loss"] == 0.5
    rate = float(learning_rates(stage.optimizers, stage.phases, 3)["learning_rate/net"][2])
    assert values["learning_rate/net"] == rate > 0
    assert values["images_per_second"] > 0
    assert values["samples"] == (4, 6, 3)
    assert "bad" not in values
    assert wandb.finished
    assert wandb.how["project"] == "project"
    assert wandb.how["settings"] == {"symlink": False}  # a run's folder holds no links
    assert read(tmp_path / "metrics.jsonl")[-1] == {"step": 3, "loss": 0.5, "learning_rate/net": rate}
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Wandb("project", tmp_path)


def test_learning_rates_are_those_of_the_schedule():
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    phases = [Phase("d", None), Phase("d", None, every=2, name="r1"), Phase("g", None, every=2)]
    optimizers = {"d": rated_adam(schedule), "g": rated_adam(schedule), "w": rated_adam(0.1), "other": optax.adam(0.1)}
    found = learning_rates(optimizers, [*phases, Phase("w", None)], 4)
    np.testing.assert_allclose(found["learning_rate/d"], [0.75, 0.5, 0.0, 0.0])  # of the second update of the first step, ...
    np.testing.assert_allclose(found["learning_rate/g"], [1, 1, 0.75, 0.75])
    np.testing.assert_allclose(found["learning_rate/w"], 0.1)
    assert len(found) == 3


@pytest.mark.parametrize("name", SHORTER)
def test_every_experiment_logs_a_rate_for_each_player(name, tmp_path):
    """In every stage, as a finite number above 0 of each record, but where a warm-up begins at 0."""
    for stage in tiny.stages(tiny.module(name), name):
        rates = learning_rates(stage.optimizers, stage.phases, stage.train.steps)
        assert set(rates) == {f"learning_rate/{phase.player}" for phase in stage.phases}
        assert all(np.isfinite(each).all() and each.max() > 0 for each in rates.values())
        (tmp_path / stage.name).mkdir()
        with Log(tmp_path / stage.name, 0, 1, 8) as log:
            watch = Watch(stage, log, None)
            watch.see(stage.train.steps, {"loss": 0.0})
            watch.catch_up()
        (record,) = read(tmp_path / stage.name / "metrics.jsonl")
        assert {"step", "loss", *rates} == set(record)
