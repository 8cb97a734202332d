"""A text is compared with the captions that a run was trained on."""

import numpy as np
import pytest

from jgen.app import words
from jgen.config import DataConfig
from jgen.data.source import ArraySource
from jgen.errors import UserError

CAPTIONS = ("a woman superhero with dark skin", "a red apple", *["a grey cat"] * 2000, "a firefighter")


def captioned(data, seed):
    rows = np.stack([np.frombuffer(text.encode().ljust(48, b"\0"), np.uint8) for text in CAPTIONS])
    return ArraySource({"image": np.zeros((len(rows), 2, 2, 1), np.uint8), "caption": rows})


def test_all_captions_count_and_capitals_do_not_where_there_are_none(monkeypatch, capsys):
    monkeypatch.setattr(words, "open_source", captioned)
    data = DataConfig("emoji")
    assert words.known_text("A Firefighter with dark skin", data, 0) == "a firefighter with dark skin"
    assert capsys.readouterr().out == ""
    assert words.known_text("a purple apple", data, 0) == "a purple apple"
    assert "text: purple is in no caption that this run was trained on" in capsys.readouterr().out
    with pytest.raises(UserError, match="text=zebra: has no word of the captions of emoji"):
        words.known_text("zebra", data, 0)
    with pytest.raises(UserError, match="text: must not be empty"):
        words.known_text(" ", data, 0)
