"""A score with its provenance, and the comparison that refuses unlike with unlike."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jgen.errors import UserError
from jgen.files import replacing, versions

CHANGE_NUMBERS = ("jax", "flax", "numpy", "pillow")
"""Packages whose versions could change a score."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One number and all that is needed to know what it means."""

    metric: str
    """Its full name, the feature network's included: fd_fashion_mnist_cnn. Only Inception's is called FID."""
    value: float
    protocol: Mapping[str, Any]
    """How it was measured: scores compare only where all of this is equal."""
    subject: Mapping[str, Any]
    """The measured subject: the run, its checkpoint's step, sampler, steps and seed; or a folder."""
    versions: Mapping[str, str] = dataclasses.field(default_factory=lambda: versions(*CHANGE_NUMBERS))


def write(records: Sequence[Record], path: Path) -> None:
    """Writes records as JSON, so that a reader never sees half of a file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"records": [dataclasses.asdict(r) for r in records]}, indent=2, default=str))


def read(path: Path) -> list[Record]:
    """The records of a file that `write` wrote. Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        return [Record(**row) for row in json.loads(path.read_text())["records"]]
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a file of scores, as `evaluate` writes them ({type(error).__name__}: {error})") from error


def compare(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[str, float, float]]:
    """(metric, value in a, value in b) for the metrics that both hold.

    Raises UserError that names the difference where protocols differ, or where there is no metric in common.
    """
    left, right = ({r.metric: r for r in records} for records in (a, b))
    common = [name for name in left if name in right]
    if not common:
        raise UserError(f"nothing to compare: {', '.join(left) or 'no score'} against {', '.join(right) or 'no score'}")
    for name in common:
        p, q = left[name].protocol, right[name].protocol
        different = [f"{k}: {p.get(k)} against {q.get(k)}" for k in dict.fromkeys((*p, *q)) if p.get(k) != q.get(k)]
        if different:
            raise UserError(f"{name}: measured differently, so the values do not compare; {'; '.join(different)}")
    return [(name, left[name].value, right[name].value) for name in common]
