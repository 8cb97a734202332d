"""Fidelity against diversity over a knob, from the records of an evaluation such as that of experiments/guided.py."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jgen import figures, pictures
from jgen.errors import UserError
from jgen.metrics.record import Record

NAME = re.compile(r"(?P<measure>.+) at (?P<knob>[^=]+)=(?P<value>[-+.\deE]+)")


def curves(records: Sequence[Record]) -> dict[str, dict[str, np.ndarray]]:
    """knob -> {"value", and a measure each: float [N]}, in order of the knob, of records named "MEASURE at KNOB=VALUE".

    Raises UserError where there is none.
    """
    found: dict[str, dict[float, dict[str, float]]] = {}
    for record in records:
        if match := NAME.fullmatch(record.metric):
            found.setdefault(match["knob"], {}).setdefault(float(match["value"]), {})[match["measure"]] = record.value
    if not found:
        raise UserError("no record is named MEASURE at KNOB=VALUE, as those of experiments.guided are")
    return {
        knob: {
            "value": np.array(sorted(rows)),
            **{m: np.array([rows[v].get(m, np.nan) for v in sorted(rows)]) for m in next(iter(rows.values()))},
        }
        for knob, rows in found.items()
    }


def plot(records: Sequence[Record], path: Path, x: str = "recall", y: str = "precision") -> None:
    """Writes a PNG: y over x, a line a knob, each point marked with its value. Raises UserError for a measure not there."""
    figure = figures.new(5, 4)
    axes = figure.add_subplot()
    for knob, rows in curves(records).items():
        if missing := [m for m in (x, y) if m not in rows]:
            raise UserError(f"{missing[0]}: no such measure; there are {', '.join(m for m in rows if m != 'value')}")
        axes.plot(rows[x], rows[y], marker="o", label=knob)
        for value, a, b in zip(rows["value"], rows[x], rows[y]):
            axes.annotate(f"{value:g}", (a, b), textcoords="offset points", xytext=(5, 5), fontsize=8)
    figures.label(axes, x, y)
    axes.legend()
    pictures.save(figures.render(figure), path)
