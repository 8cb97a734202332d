"""The trackers of a run: TensorBoard and Weights & Biases are given scalars, rates and pictures alike."""

import sys
import types

import numpy as np
import optax
import pytest
from PIL import Image

from jgen.errors import UserError
from jgen.train.log import Log
from jgen.train.rates import learning_rates, rated
from jgen.train.tracker import Wandb


class _Run:
    def __init__(self):
        self.logged, self.finished = [], False

    def log(self, values, step):
        self.logged.append((step, values))

    def finish(self):
        self.finished = True


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
    with Log(tmp_path, 0, 2, 8, wandb="project") as log:
        log.progress(1, 0.5)
        log.progress(2, 0.5)
        log.rates = {"learning_rate/net": np.array([0.2, 0.1])}
        log.record(2, {"loss": 0.5, "bad": float("nan")})
        log.picture(2, "samples", Image.fromarray(np.zeros((4, 6), np.uint8)))
    values = {name: value for _, each in wandb.logged for name, value in each.items()}
    assert values["loss"] == 0.5
    assert values["learning_rate/net"] == 0.1
    assert values["images_per_second"] > 0
    assert values["samples"] == (4, 6, 3)
    assert "bad" not in values
    assert wandb.finished
    assert wandb.how["project"] == "project"
    assert wandb.how["settings"] == {"symlink": False}  # a run's folder holds no links
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 2, "loss": 0.5}\n'
    assert list((tmp_path / "tensorboard").iterdir())


def test_a_missing_package_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match="pip install wandb"):
        Wandb("project", tmp_path)


def test_learning_rates_are_those_of_the_schedule():
    schedule = optax.linear_schedule(1.0, 0.0, 4)
    found = learning_rates({"g": rated(optax.adam(schedule), schedule), "d": optax.adam(0.1)}, 4)
    np.testing.assert_allclose(found["learning_rate/g"], [1, 0.75, 0.5, 0.25])
    assert list(found) == ["learning_rate/g"]
