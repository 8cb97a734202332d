"""Run folders from strangers: whatever their config.json holds, it is a run or one clear error, and no code of theirs runs."""

import copy
import json

import pytest

import jgen
from experiments import ddpm
from jgen.config import to_dict
from jgen.errors import UserError
from jgen.run_folder import read_config
from tests import tiny

STORED = {"format": 3, "module": "experiments.ddpm", "preset": "digits", "config": to_dict(tiny.config())}
NASTY = [None, True, 7, -1, 1.5, float("nan"), float("inf"), "x", "", [], [[]], {}, {"a": 1}, [None], 10**30]


def places(tree, at=()):
    """The paths of all values of a tree of dicts."""
    for key, value in tree.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from places(value, (*at, key))


def put(tree, at, value):
    changed = copy.deepcopy(tree)
    inner = changed
    for key in at[:-1]:
        inner = inner[key]
    inner[at[-1]] = value
    return changed


def attempt(folder, stored):
    """ "a run", or the error of loading it. The checkpoint that is missing is the last thing that is looked for."""
    (folder / "config.json").write_text(stored if isinstance(stored, str) else json.dumps(stored))
    try:
        jgen.load(folder)
    except UserError as error:
        return str(error)
    return "a run"


def test_values_of_other_types_are_one_clear_error(tmp_path, monkeypatch):
    """Every setting is replaced by every nasty value, in both forms of the file."""
    monkeypatch.setattr(ddpm, "build", lambda config: pytest.skip("never built") if config is None else _Nothing())
    tried = 0
    for stored in (STORED, {**STORED, "format": 2}, {k: v for k, v in STORED.items() if k != "format"}):
        for at in places(stored):
            for value in NASTY:
                found = attempt(tmp_path, put(stored, at, value))
                assert found.isprintable()
                tried += 1
    assert tried > 2000


class _Nothing:
    """An experiment without stages, so that nothing is built for values that are valid."""

    stages = ()


@pytest.mark.parametrize(
    "text, message",
    [("[]", "is list; must be settings by name"), ("null", "is NoneType"), ("3", "is int"), ("{", "not JSON"), ("", "not JSON"),
     ("[" * 100_000, "not JSON"), ('{"module": ' + "9" * 5000 + "}", "not JSON"), ("{}", "module is None"),
     ('{"module": "os", "preset": "", "config": []}', r"config is \[\]")],
)  # fmt: skip
def test_other_contents_are_one_clear_error(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_config(tmp_path)


def test_bytes_that_are_no_text_are_one_clear_error(tmp_path):
    (tmp_path / "config.json").write_bytes(b'{"module": "\xff\xfe"}')
    with pytest.raises(UserError, match="not JSON"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "module", ["payload", "os", "experiments", "experiments.__init__", "experiments.ddpm.x", "jgen.app", ".ddpm"]
)
def test_no_module_that_a_run_names_is_imported(tmp_path, monkeypatch, module):
    (tmp_path / "payload.py").write_text("raise SystemExit('its code ran')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert "is none of jgen's experiments" in attempt(tmp_path, {**STORED, "module": module})
