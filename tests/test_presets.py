"""The presets for accelerators are the settings that experiments/presets.json states: networks, optimizers, rates, averages."""

import functools
import json
import math
import operator
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from docs.presets import render
from jgen.app import protocol
from jgen.config import Evaluation
from jgen.data.known import resolve_or_known
from jgen.errors import UserError
from jgen.recipes.gan import backbones
from jgen.train.stage import count, state_shapes
from tests import tiny

ROWS = protocol.rows()
TIMES = (0.0, 0.1, 0.5, 1.0)
"""Shares of the training at which rates and averages are compared."""


@pytest.fixture(autouse=True, scope="module")
def deit_of_zeros():
    """Shapes are all that is computed here."""
    with backbones.of_shapes():
        yield


@functools.cache
def resolved_stages(name, preset):
    """The stages of a preset whose data need not be here."""
    module = tiny.module(name)
    config = module.PRESETS[preset]
    return module.build(replace(config, data=resolve_or_known(config.data))).stages


def updates_of(stage, player):
    """How many updates a player's main phase makes."""
    every = next(phase.every for phase in stage.phases if phase.player == player)
    return stage.train.steps // every


WEIGHT = {"synthesis": {"head": jnp.zeros(1)}}
"""A network of one weight, of a part of a generator that is trained while its stem is not."""


def at_count(state, number):
    """An optimizer's state after so many updates, for its schedules alone: states that are no more than a count."""

    def scheduled(part):
        return getattr(part, "_fields", ()) == ("count",)

    def moved(part):
        return part._replace(count=jnp.asarray(number, jnp.int32)) if scheduled(part) else part

    return jax.tree.map(moved, state, is_leaf=scheduled)


def first_steps(stage, player):
    """(the update by a large gradient, the optimizer's state then) of a first step at TIMES."""
    optimizer = stage.optimizers[player]
    for time in TIMES:
        state = at_count(optimizer.init(WEIGHT), int(time * updates_of(stage, player)))
        update, state = optimizer.update(jax.tree.map(lambda w: w + 1e6, WEIGHT), state, WEIGHT)
        yield float(update["synthesis"]["head"][0]), state


def rates(stage, player):
    """The learning rate at TIMES: the size of a first step of Adam and Adamax, which does not depend on the gradient."""
    return [float(f"{-update:.4g}") for update, _ in first_steps(stage, player)]  # its bias correction rounds


def second_decays(stage, player):
    """The decay of Adam's second moments at TIMES, where it has a schedule."""
    return [float(f"{float(state.hyperparams['b2']):.6g}") for _, state in first_steps(stage, player)]


def chosen(settings, path):
    """A setting by its path, such as "sampling.solver.steps"; tuples as JSON's lists."""
    found = operator.attrgetter(path)(settings)
    return json.loads(json.dumps(found))


def emas(stage, player):
    """The decay of a player's average at TIMES."""
    decay = stage.ema[player]
    found = [decay(jnp.asarray(int(t * stage.train.steps))) if callable(decay) else decay for t in TIMES]
    return [float(f"{float(value):.6g}") for value in found]


def moves(optimizer, gradients, scale=1.0):
    """The weight after each of some gradients, from 0.3, in units of `scale`."""
    weight = jnp.full(1, 0.3)
    state, seen = optimizer.init(weight), []
    for gradient in gradients:
        update, state = optimizer.update(jnp.full(1, gradient), state, weight)
        seen.append(float(update[0]) / scale)
        weight = weight + update
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['experiment']}-{row['preset']}")
def test_a_preset_is_the_one_that_is_documented(row):
    stages = resolved_stages(row["experiment"], row["preset"])
    assert [stage.name for stage in stages] == [own["name"] for own in row["stages"]]
    for stage, own in zip(stages, row["stages"]):
        assert {player: count(tree) for player, tree in state_shapes(stage).params.items()} == own["parameters"]
        assert (stage.train.steps, stage.data.batch_size) == (own["steps"], own["batch"])
        assert own["images"] == own["steps"] * own["batch"]
        assert stage.train.dtype == row["precision"].split()[0]
        assert stage.data.flip == row["augmentation"].startswith("flips")
        assert set(stage.optimizers) == set(own["players"])
        for player, settings in own["players"].items():
            np.testing.assert_allclose(rates(stage, player), settings["rates"], rtol=1e-3, atol=1e-12)
            if "second_decays" in settings:
                np.testing.assert_allclose(second_decays(stage, player), settings["second_decays"], rtol=1e-5)
            assert (player in stage.ema) == ("ema" in settings)
            if "ema" in settings:
                np.testing.assert_allclose(emas(stage, player), settings["ema"], rtol=1e-6)
    assert stages[-1].options == tiny.module(row["experiment"]).PRESETS[row["preset"]].sampling
    check_optimizers(row)


def check_optimizers(row):
    """The moments' decays, the weight decay and the clipping, by the moves of a weight."""
    gradients = [3.0, -0.2, 0.5, 0.01]
    for stage, own in zip(resolved_stages(row["experiment"], row["preset"]), row["stages"]):
        for player, settings in own["players"].items():
            if not settings["betas"]:  # Adamax, schedules of its own, or weights that stay as they are
                continue
            time = settings["rates"][2]  # half-way, where no warm-up is
            b1, b2 = settings["betas"]
            plain = optax.adamw(time, b1, b2, weight_decay=settings["weight_decay"])
            clip = optax.clip_by_global_norm(settings["clip"]) if settings["clip"] else optax.identity()
            optimizer = stage.optimizers[player]
            half = updates_of(stage, player) // 2
            halfway = optax.GradientTransformation(
                lambda w, o=optimizer, n=half: at_count(o.init(w), n), lambda g, s, w, o=optimizer: o.update(g, s, w)
            )
            expected = moves(optax.chain(clip, plain), gradients, time)
            np.testing.assert_allclose(moves(halfway, gradients, time), expected, rtol=0.01, atol=1e-4)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['experiment']}-{row['preset']}")
def test_the_settings_of_a_preset_are_those_of_its_source(row):
    """Those of the objective, the augmentation and the network that counts of parameters don't show, and the sampler's."""
    config = tiny.module(row["experiment"]).PRESETS[row["preset"]]
    assert {path: chosen(config, path) for path in row["settings"]} == row["settings"]
    options = config.sampling
    solver = {"solver": type(options.solver).__name__} if hasattr(options, "solver") else {}
    assert solver | {path: chosen(options, path) for path in row["sampling"] if path != "solver"} == row["sampling"]


def test_every_preset_for_accelerators_is_documented():
    presets = {(name, preset) for name in tiny.EXPERIMENTS for preset in tiny.module(name).PRESETS}
    assert {each for each in presets if not tiny.for_cpus(*each)} == {(row["experiment"], row["preset"]) for row in ROWS}


def test_targets_say_where_they_come_from():
    for row in ROWS:
        assert row["source"]
        if target := row["target"]:
            assert target["source"]
            assert math.isfinite(target["value"])
            assert target["samples"] > 0
            assert target["features"]
            assert target["reference"]


def test_the_page_is_made_of_the_table():
    assert (tiny.ROOT / "docs" / "presets.md").read_text() == render(ROWS)


def test_a_run_is_measured_as_its_target_was():
    given = Evaluation(protocol="paper", extractor="inception_tf:weights.pth")
    found, line = protocol.paper("experiments.ddpm", "cifar10", given)
    assert (found.metrics, found.num, found.split, found.extractor) == ("fd", 50000, "train", given.extractor)
    assert "FID 3.17, unconditional (Ho et al. 2020, table 1); of 50,000 samples, drawn with: DDPM, 1,000 steps" in line
    assert line.endswith("against the training images")
    found, _ = protocol.paper("experiments.pixelcnn", "cifar10", Evaluation(protocol="paper"))
    assert (found.metrics, found.num, found.split) == ("", 10000, "test")
    found, line = protocol.paper("experiments.tarflow", "imagenet64", Evaluation(protocol="paper"))
    assert (found.metrics, found.num, found.split) == ("", 49999, "validation")
    assert line.endswith("; of 49,999 validation images (8-bit values)")


@pytest.mark.parametrize(
    "preset,options,message",
    [
        ("digits", {}, "protocol=paper: ddpm --preset digits has no published target; there is one for cifar10"),
        ("cifar10", {}, "protocol=paper: FID 3.17 is of Inception's features; .* --extractor inception_tf:FILE; .* 6726825d"),
        ("cifar10", {"num": 1000}, "num=1000: --protocol paper takes 50000"),
        ("cifar10", {"split": "test"}, "split=test: --protocol paper takes train"),
        ("cifar10", {"against": "folder"}, "against=folder: --protocol paper measures the run's own samples"),
    ],
)
def test_what_is_missing_for_a_protocol_is_said_in_one_line(preset, options, message):
    with pytest.raises(UserError, match=message) as error:
        protocol.paper("experiments.ddpm", preset, Evaluation(protocol="paper", **options))
    assert "\n" not in str(error.value)
