"""python -m jgen.data: lists, shows and prepares sets."""

import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data import resolve
from jgen.data import sources as sources_module
from tests.data.sets import write_folder


def test_the_command_lists_and_shows(tmp_path, capsys):
    from jgen.app.data_command import main

    main(["list", "--root", str(tmp_path)])
    assert "glyphs" in capsys.readouterr().out
    main(["show", "glyphs", "--resolution", "16", "--out", str(tmp_path / "g.png"), "--num", "9"])
    assert "62 classes" in capsys.readouterr().out
    assert Image.open(tmp_path / "g.png").width > 300
    with pytest.raises(SystemExit) as stop:
        main(["show", "nothing_of_the_kind"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: data.name=nothing_of_the_kind: no such set")


def test_a_sheet_is_spread_over_the_set_and_small(tmp_path, monkeypatch):
    from jgen.app.data_command import main

    monkeypatch.setattr(sources_module, "IN_MEMORY", 0)
    for i in range(4):
        Image.new("L", (8, 8), 60 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"no image")
    sheet = tmp_path / "sheet" / "s.png"
    words = ["show", f"folder:{tmp_path}", "--num", "2", "--out", str(sheet), "--skip-bad", "--channels", "1"]
    main([*words, "--resolution", "512"])
    assert Image.open(sheet).size == (515, 258)
    values = np.asarray(Image.open(sheet))
    assert values[5, 5] == 60
    assert values[5, -5] == 180


def test_options_without_effect_on_a_set_are_refused(tmp_path, monkeypatch, capsys):
    folder = write_folder(tmp_path / "photos")
    from jgen.app.data_command import main

    monkeypatch.chdir(tmp_path)
    for words, says in (
        (["show", f"folder:{folder}", "--split", "test"], "data.split=test: a folder has no splits"),
        (["prepare", "fashion_mnist", "--resolution", "32"], "resolution=32: has no effect on fashion_mnist"),
        (["show", "digits", "--out", "sheet.jpg"], "out=sheet.jpg: must be a .png"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match="data.split=test: a folder has no splits"):
        resolve(DataConfig(f"folder:{folder}", split="test"))
    assert not list(tmp_path.glob("*.png"))
