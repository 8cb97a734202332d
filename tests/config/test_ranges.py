"""Every number that an option of any experiment can take is valid or refused by its name: bad inputs made from the ranges."""

import dataclasses
import math
import typing

import pytest

import jgen
from experiments import cascade, ddpm
from jgen.config import DataConfig, changed, check
from jgen.config.ranges import Leaf, Range, leaves
from jgen.config.samplers import SAMPLERS
from jgen.config.values import with_sampler
from jgen.errors import UserError
from tests import tiny


def parts(hint):
    """(plain type, range) of an annotated type; of a tuple those of its items."""
    range_ = None
    while typing.get_origin(hint) is not None and typing.get_origin(hint) is not typing.Literal:
        if typing.get_origin(hint) is typing.Annotated:
            own = next((mark for mark in hint.__metadata__ if isinstance(mark, Range)), None)
            range_, hint = range_ or own, typing.get_args(hint)[0]
        else:
            hint = next(arg for arg in typing.get_args(hint) if arg not in (type(None), Ellipsis))
    return hint, range_


def is_row(hint):
    while typing.get_origin(hint) is typing.Annotated:
        hint = typing.get_args(hint)[0]
    return typing.get_origin(hint) is tuple


def bad_values(leaf: Leaf):
    """Values just outside of an option's range, not finite, or of another type."""
    kind, range_ = parts(leaf.hint)
    if typing.get_origin(kind) is typing.Literal:
        found = ["nonsense", 17.5, None]
    elif kind is float:
        found = [math.nan, math.inf, -math.inf, "1", True]
    elif kind is int:
        found = [0.5, math.nan, math.inf, "1", True]
    elif kind is bool:
        found = ["yes", 2, None]
    else:
        found = [3, None]
    if range_ is not None:
        step = 1 if kind is int else 1e-3
        found += [range_.low if range_.open_low else range_.low - step, -(10**9) if range_.low > -(10**9) else None]
        found += [range_.high if range_.open_high else range_.high + step]
        found = [v for v in found if v is not None and not (isinstance(v, float) and math.isinf(v) and kind is int)]
        found = [int(v) if kind is int and isinstance(v, float) and v.is_integer() else v for v in found]
    if type(None) in typing.get_args(leaf.hint):
        found = [v for v in found if v is not None]
    return [(v,) for v in found] if is_row(leaf.hint) else found


def replaced(config, place, value):
    """The config with the option at a place among its leaves replaced; (config, leaves passed over) where it has too few."""
    for field in dataclasses.fields(config):
        inner = getattr(config, field.name)
        if dataclasses.is_dataclass(inner):
            found, place = replaced(inner, place, value)
            if place is None:
                return dataclasses.replace(config, **{field.name: found}), None
        elif isinstance(inner, tuple) and inner and all(map(dataclasses.is_dataclass, inner)):
            items = list(inner)
            for i, item in enumerate(items):
                items[i], place = replaced(item, place, value)
                if place is None:
                    return dataclasses.replace(config, **{field.name: tuple(items)}), None
        elif place == 0:
            return dataclasses.replace(config, **{field.name: value}), None
        else:
            place -= 1
    return config, place


def outcome(config):
    try:
        check(config)
    except UserError as error:
        return str(error)
    return "accepted"


def configs(module):
    """The first preset with every sampler that it can have."""
    config = next(iter(module.PRESETS.values()))
    yield config
    options = getattr(config, "sampling", None)
    for name, row in SAMPLERS.items():
        if hasattr(options, "solver") and row.coordinates in options.coordinates:
            yield dataclasses.replace(config, sampling=with_sampler(options, name))


@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_bad_values_of_every_option_are_refused_by_its_name(name):
    tried = 0
    for config in configs(tiny.module(name)):
        check(config)
        for place, leaf in enumerate(leaves(config)):
            for value in bad_values(leaf):
                changed, _ = replaced(config, place, value)
                assert outcome(changed).startswith(f"{leaf.name}="), (leaf.name, value, outcome(changed))
                tried += 1
    assert tried > 100, tried


def numbers_without_range(config):
    return [leaf.name for leaf in leaves(config) if parts(leaf.hint)[0] in (int, float) and parts(leaf.hint)[1] is None]


@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_every_number_has_a_range(name):
    """Except those that may be any finite number."""
    free = {"sampling.guidance", "sampling.psi", "mean"}
    for config in configs(tiny.module(name)):
        assert set(numbers_without_range(config)) <= free


def test_rows_of_a_fixed_length_are_checked():
    assert outcome(DataConfig(shape=(8, 8, 3))) == outcome(DataConfig()) == "accepted"
    assert outcome(DataConfig(shape=(2,))) == "shape=2: must have 0 or 3 values"


CLI = [
    (["--learning-rate", "nan"], "learning_rate=nan"),
    (["--learning-rate", "inf"], "learning_rate=inf"),
    (["--learning-rate", "-1"], "learning_rate=-1"),
    (["--ema", "1.5"], "ema=1.5"),
    (["--dropout", "-0.1"], "dropout=-0.1"),
    (["--channels", "0"], "channels=0"),
    (["--train.steps", "0"], "train.steps=0"),
    (["--sampling.eta", "2"], "sampling.eta=2"),
    (["--sampling.steps", "-5"], "sampling.steps=-5"),
    (["--data.batch-size", "0"], "data.batch_size=0"),
    (["--min-snr", "nan"], "min_snr=nan"),
    (["--sampling.threshold", "-inf"], "sampling.threshold=-inf"),
]


@pytest.mark.parametrize("args, message", CLI)
def test_the_command_line_says_so_in_one_line(args, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    module = tiny.module("ddpm")
    with pytest.raises(SystemExit, match="2"):
        jgen.main(module.Config, module.build, module.PRESETS, args)
    found = capsys.readouterr().err
    assert found.startswith(f"error: {message}")
    assert found.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_options_of_a_group_are_changed_by_their_whole_name():
    config = changed(ddpm.Config(), {"data.batch_size": 8, "train.steps": 3, "learning_rate": 0.5})
    assert (config.data.batch_size, config.train.steps, config.optimizer.learning_rate) == (8, 3, 0.5)
    stacked = changed(cascade.Config(), {"stages.1.channels": 16})
    assert (stacked.stages[1].channels, stacked.stages[0]) == (16, cascade.Config().stages[0])
    with pytest.raises(UserError, match="batch_size: no such sampling option"):
        changed(ddpm.Config(), {"batch_size": 8})
