"""Curves drawn from records: precision against recall, a score over the steps of samplers."""

from pathlib import Path

import numpy as np
import pytest

from jgen.metrics import by_steps, trade_off
from jgen.metrics.record import Record


def test_the_trade_off_is_drawn_from_records(tmp_path):
    rows = [
        Record(f"{m} at guidance={g}", v, {}, {})
        for g, values in ((3.0, (0.9, 0.3)), (1.0, (0.5, 0.8)))
        for m, v in zip(("precision", "recall"), values)
    ]
    found = trade_off.curves(rows)["guidance"]
    np.testing.assert_array_equal(found["value"], [1, 3])
    np.testing.assert_array_equal(found["recall"], [0.8, 0.3])
    trade_off.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="fd: no such measure; there are precision, recall"):
        trade_off.plot(rows, tmp_path / "x.png", x="fd")
    with pytest.raises(ValueError, match="no record is named"):
        trade_off.curves([Record("fd", 1.0, {}, {})])


def test_a_score_over_steps_is_drawn_a_line_a_sampler(tmp_path):
    def record(steps, value, sampler="dpm", seed=0, run="r", **more):
        sampling = {"sampler": sampler, "steps": steps, "eta": 0.0, "order": 2, **more}
        return Record("fd_x", value, {"num": 10}, {"run": run, "step": 1, "seed": seed, "sampling": sampling})

    rows = [record(20, 0.2), record(10, 0.3), record(10, 0.4, order=3), record(50, 0.1, "ddim")]
    found = {"dpm, order 2": [(10, 0.3), (20, 0.2)], "dpm, order 3": [(10, 0.4)], "ddim, order 2": [(50, 0.1)]}
    assert by_steps.lines(rows) == found
    newer = record(30, 0.2, "ddim", run=str(Path("r").resolve()), churn=0.0)  # named otherwise, and with one more setting
    assert by_steps.lines([*rows, newer]) == {**found, "ddim, order 2": [(30, 0.2), (50, 0.1)]}
    by_steps.plot(rows, tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
    for bad, message in [
        (rows[:1], "a curve needs two or more"),
        ([rows[0], rows[0]], "dpm, 20 steps: two scores of the same sampling"),
        ([rows[0], record(10, 0.3, seed=1)], "seed 0 against 1"),
        ([rows[0], record(10, 0.3, run="s")], "run r against s"),
        ([rows[0], Record("fd_x", 1.0, {"num": 10}, {"folder": "f"})], "tells no steps"),
        ([rows[0], Record("kid_x", 1.0, {"num": 10}, rows[1].subject)], "nothing to compare"),
    ]:
        with pytest.raises(ValueError, match=message):
            by_steps.plot(bad, tmp_path / "x.png")
