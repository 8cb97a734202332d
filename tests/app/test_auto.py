"""`train --preset auto`: settings chosen for a set, said line by line; options that are given win."""

import re
from types import SimpleNamespace

import pytest

import jgen
from experiments import stylegan2
from jgen.app import auto, train_command
from jgen.config.auto import SetFacts


@pytest.fixture
def shown(monkeypatch):
    """Configs that would be built, in place of building them."""
    found = []
    facts = SetFacts(448, 64, 3, True, 3, 0, 0)
    runs = SimpleNamespace(
        facts_of=lambda given: facts, start=lambda mesh, batch: None, began=lambda: "now",
        show_costs=lambda build, config, memory, device: found.append(config),
    )  # fmt: skip
    monkeypatch.setattr(train_command, "commands", lambda: runs)
    monkeypatch.setattr(auto.memory, "has_accelerators", lambda: False)
    return found


def main(*args):
    jgen.main(stylegan2.Config, stylegan2.build, stylegan2.PRESETS, args, auto=stylegan2.auto)


def test_options_that_are_given_win_and_are_said(shown, capsys):
    main("--preset", "auto", "--data.name", "folder:photos", "--r1-gamma", "3", "--dry-run")
    (config,) = shown
    assert (config.data.resolution, config.data.batch_size, config.style.r1_gamma) == (32, 32, 3.0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == (
        "auto: folder:photos, 448 images of 64 pixels and more, 3 channels, 0 classes; "
        "on CPUs (JAX has no plugin for an accelerator here)"
    )
    assert "  --r1-gamma 3.0: as given (else 0.0064)" in lines
    assert sum(line.startswith("  --data.resolution 32: nine images in ten have") for line in lines) == 1


@pytest.mark.parametrize(
    "args,message",
    [
        (["--preset", "auto"], "preset=auto: chooses settings for a set; name it, --data.name folder:PHOTOS"),
        (["--preset", "auot"], "preset=auot: must be one of digits, .*auto .did you mean auto"),
        (["--preset", "auto", "--data.name", "folder:photos", "--data.batch-size", "-1"], "data.batch_size=-1"),
    ],
)
def test_bad_input_is_one_line(shown, args, message, capsys):
    with pytest.raises(SystemExit):
        main(*args)
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)


@pytest.mark.parametrize("platforms,expected", [("cpu", False), ("cpu,cuda", False)])
def test_a_machine_that_uses_cpus_alone_has_no_accelerator(platforms, expected, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    assert auto.memory.has_accelerators() is expected
