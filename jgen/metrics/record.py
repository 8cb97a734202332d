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


def basis(record: Record) -> str:
    """The images that a value was measured on, in words: "1,000 samples against 1,437 training images of digits (split train)".

    Images are training images where their split is the one that the run was trained on, and held-out images where it is
    another; a score of files, which no run made, is against images of a split.
    """
    how, trained = record.protocol, record.subject.get("trained_on")
    if "reference" not in how:
        return f"on {how.get('num', 0):,} latents"
    split = how.get("reference_split")
    kind = "images" if trained is None else "training images" if split == trained else "HELD-OUT images"
    images = f"{kind} of {how.get('reference')} (split {split})"
    if "extractor" not in how:
        return f"on {how.get('num', 0):,} {images}"
    what = "images" if "images" in record.subject else "samples"
    return f"{how.get('num', 0):,} {what} against {how.get('reference_num', 0):,} {images}"


def write(records: Sequence[Record], path: Path) -> None:
    """Writes records as JSON, so that a reader never sees half of a file."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"records": [dataclasses.asdict(r) for r in records]}, indent=2, default=str))


def read(path: Path) -> list[Record]:
    """The records of a file that `write` wrote. Raises UserError for any other file."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        found = [Record(**row) for row in json.loads(path.read_text())["records"]]
        return [dataclasses.replace(each, value=float(each.value)) for each in found]
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
