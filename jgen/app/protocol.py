"""`evaluate --protocol paper`: a run measured as the target of its preset was, by the table of presets."""

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any

from jgen.config import Evaluation
from jgen.errors import UserError

METRICS = {"FID": "fd", "Inception Score": "is", "bits/dim": ""}
"""The name of a target's metric -> what --metrics calls it; "" is the experiment's own evaluation."""
INCEPTION = (
    "give the features that it was measured with, --extractor inception_tf:FILE; FILE is pytorch-fid's "
    "pt_inception-2015-12-05-6726825d.pth (github.com/mseitzer/pytorch-fid, releases), whose sha256 begins with 6726825d"
)


def rows() -> list[dict[str, Any]]:
    """The table of presets for accelerators."""
    return json.loads((resources.files("experiments") / "presets.json").read_text())


def paper(module: str, preset: str, given: Evaluation) -> tuple[Evaluation, str]:
    """(the evaluation that the target of a preset asks for, a line that says what its target is).

    Raises UserError for a preset without a target, for options that say otherwise, and for features that are missing.
    """
    name = module.removeprefix("experiments.")
    own = {row["preset"]: row for row in rows() if row["experiment"] == name and row["target"]}
    if preset not in own:
        others = f"; there is one for {', '.join(own)}" if own else ", nor have its other presets"
        raise UserError(f"protocol=paper: {name} --preset {preset} has no published target{others}")
    row, target = own[preset], own[preset]["target"]
    metrics = METRICS[target["metric"]]
    split = "validation" if target["reference"].startswith("validation") else "train" if metrics else "test"
    required = {"metrics": metrics, "num": target["samples"], "split": split, "reference_num": 0}
    for option, value in required.items():
        if (said := getattr(given, option)) and said != value:
            raise UserError(f"{option}={said}: --protocol paper takes {value or 'none'}")
    if given.against:
        raise UserError(f"against={given.against}: --protocol paper measures the run's own samples")
    if metrics and not given.extractor.startswith("inception_tf:"):
        raise UserError(f"protocol=paper: {target['metric']} {target['value']} is of Inception's features; {INCEPTION}")
    return replace(given, **required), _line(row)


def _line(row: Mapping[str, Any]) -> str:
    """The target of a row in words, and how its authors measured it."""
    target = row["target"]
    conditional = "class-conditional" if target["conditional"] else "unconditional"
    line = f"target: {target['metric']} {target['value']}, {conditional} ({target['source']})"
    line += f"; {target['note']}" if "note" in target else ""
    if not METRICS[target["metric"]]:
        return f"{line}; of {target['samples']:,} {target['reference']}"
    line += f"; of {target['samples']:,} samples, drawn with: {row['sampler']}"
    if target["reference"].startswith("ADM"):
        return f"{line}; against {target['reference']}, for which the training images stand in, resized in another way"
    return line if target["reference"] == "none" else f"{line}; against the {target['reference']}"
