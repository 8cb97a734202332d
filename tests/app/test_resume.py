"""A run of a folder of images that has changed since is not resumed in silence."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

import jgen
from experiments import ddpm
from jgen.app import train_command
from jgen.app.training import write_config
from jgen.data import census
from tests import tiny


@pytest.fixture
def run(tmp_path, monkeypatch):
    """(the folder of a run, that of its images, and the configs that would be trained)."""
    photos, begun = tmp_path / "photos", []
    photos.mkdir()
    for i in range(9):
        Image.fromarray(np.full((8, 8), 20 * i, np.uint8)).save(photos / f"{i}.png")
    data = {"name": f"folder:{photos}", "resolution": 8, "channels": 1, "shape": (8, 8, 1), "num_classes": 0, "classes": ()}
    config = tiny.config()
    config = replace(config, data=replace(config.data, **data))
    write_config(tmp_path / "run", "experiments.ddpm", "digits", config, census(config.data))
    runs = SimpleNamespace(start=lambda *_: None, census=census, train=lambda *given: begun.append(given[3]))
    monkeypatch.setattr(train_command, "commands", lambda: runs)
    return tmp_path / "run", photos, begun


def train(folder, *words):
    jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, ["--run", str(folder), *words])


def test_a_folder_with_other_files_is_refused_unless_it_is_accepted(run, capsys):
    folder, photos, begun = run
    train(folder)
    (photos / "3.png").unlink()
    with pytest.raises(SystemExit):
        train(folder)
    error = capsys.readouterr().err
    assert f"folder:{photos}: 9 files of hash" in error
    assert "-> 8 files of hash" in error
    assert "--accept-changes" in error
    assert error.count("\n") == 1
    train(folder, "--accept-changes")
    assert len(begun) == 2


def test_a_run_that_did_not_count_its_files_goes_on(run):
    folder, photos, begun = run
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"files"', '"other"'))
    (photos / "3.png").unlink()
    train(folder)
    assert len(begun) == 1
