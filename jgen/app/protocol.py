"""`evaluate --protocol paper`: a run measured as the target of its preset was, by the table of presets."""

import json
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
    table = {(row["experiment"], row["preset"]): row["target"] for row in rows() if row["target"]}
    target = table.get((name, preset))
    if target is None:
        known = ", ".join(f"{name} {preset}" for name, preset in table)
        raise UserError(f"protocol=paper: {name} --preset {preset} has no target; there are {known}")
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
    conditional = "class-conditional" if target["conditional"] else "unconditional"
    line = f"target: {target['metric']} {target['value']}, {conditional} ({target['source']}; reference: {target['reference']})"
    if target["reference"].startswith("ADM"):
        line += "; this is against the set's training images, which ADM's authors resized in another way"
    return replace(given, **required), line
