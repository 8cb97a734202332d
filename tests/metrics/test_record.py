"""Records of scores: what they may be compared with, and what they were."""

import pytest

from jgen.errors import UserError
from jgen.metrics import record
from jgen.train.report import show_scores


def test_records_compare_like_with_like_only(tmp_path):
    a = record.Record("fd_toy", 1.0, {"num": 10, "extractor": "toy"}, {"run": "a"})
    b = record.Record("fd_toy", 2.0, {"num": 10, "extractor": "toy"}, {"run": "b"})
    record.write([a], tmp_path / "a.json")
    assert record.read(tmp_path / "a.json") == [a]
    assert record.compare([a], [b]) == [("fd_toy", 1.0, 2.0)]
    more = record.Record("fd_toy", 2.0, {"num": 20, "extractor": "toy"}, {})
    with pytest.raises(UserError, match="num: 10 against 20"):
        record.compare([a], [more])
    with pytest.raises(UserError, match="nothing to compare: fd_toy against kid_toy"):
        record.compare([a], [record.Record("kid_toy", 1.0, {}, {})])
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(UserError, match="not a file of scores"):
        record.read(tmp_path / "b.json")


def test_a_score_says_what_it_was_compared_with(tmp_path):
    how = {"extractor": "x", "num": 1000, "reference": "digits", "reference_split": "train", "reference_num": 1437}
    mine, own = {"run": "r", "trained_on": "train", "step": 5}, {"num": 256, "reference": "digits", "reference_split": "test"}
    for protocol, subject, said in (
        (how, mine, "1,000 samples against 1,437 training images of digits (split train)"),
        (how | {"reference_split": "test"}, mine, "1,000 samples against 1,437 HELD-OUT images of digits (split test)"),
        (how, {"images": "a"}, "1,000 images against 1,437 images of digits (split train)"),
        (own, mine, "on 256 HELD-OUT images of digits (split test)"),
    ):
        assert record.basis(record.Record("fd_x", 1.0, protocol, subject)) == said
    (tmp_path / "report.html").write_text("a<!-- scores -->old<!-- end of scores -->b")
    record.write([record.Record("fd_x", 1.25, how, mine)], tmp_path / "scores-fd.json")
    (tmp_path / "scores-other.json").write_text("{")
    show_scores(tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("a<!-- scores --><h2>Scores")
    assert page.endswith("<!-- end of scores -->b")
    assert "1.25000</td><td>1,000 samples against 1,437 training images of digits (split train)</td><td>5<" in page
