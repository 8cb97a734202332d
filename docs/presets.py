"""Writes docs/presets.md from experiments/presets.json:  python -m docs.presets"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HEAD = """# Presets for accelerators

The settings of each paper, as its preset has them. **None of these runs has been made with jgen yet**: the targets are the
papers'. `python -m experiments.NAME evaluate --protocol paper` measures a run as its target was measured.

The table is made from [presets.json](../experiments/presets.json) (`python -m docs.presets`), which also has every player's
rates and averages over the training, the settings of the objective, and the sampler's; tests compare it with the presets.
"""


def render(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page: the targets, then networks and training, stage by stage."""
    lines = [HEAD, "## Targets", "", "| preset | target | source | sampled with | settings from |", "|---|---|---|---|---|"]
    for row in rows:
        name = f"`{row['experiment']} --preset {row['preset']}`"
        lines.append(f"| {name} | {_target(row['target'])} | {_source(row['target'])} | {row['sampler']} | {row['source']} |")
    lines += ["", "## Networks and training", "", "| preset, stage | parameters | optimizer | learning rate | EMA "]
    lines[-1] += "| batch | steps | images | augmentation, precision |"
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for row in rows:
        for stage in row["stages"]:
            lines.append(_training(row, stage))
    return "\n".join(lines) + "\n"


def _target(target: Mapping[str, Any] | None) -> str:
    if target is None:
        return "none"
    conditional = "class-conditional" if target["conditional"] else "unconditional"
    note = f"; {target['note']}" if "note" in target else ""
    return f"{target['metric']} {target['value']}, {conditional}{note}"


def _source(target: Mapping[str, Any] | None) -> str:
    if target is None:
        return "-"
    return f"{target['source']}; {target['samples']:,} samples, {target['features']}, {target['reference']}"


def _training(row: Mapping[str, Any], stage: Mapping[str, Any]) -> str:
    players = stage["players"]
    counts = ", ".join(f"{name} {number:,}" for name, number in stage["parameters"].items())
    optimizers = ", ".join(f"{name}: {_optimizer(own)}" for name, own in players.items())
    rates = ", ".join(f"{name}: {_range(own['rates'])}" for name, own in players.items())
    averages = ", ".join(f"{name}: {own['ema'][-1]:.6g}" for name, own in players.items() if "ema" in own) or "none"
    how = f"{row['augmentation']}; {row['precision']}"
    where = f"{row['experiment']} {row['preset']}, {stage['name']}"
    numbers = f"{stage['batch']:,} | {stage['steps']:,} | {stage['images']:,}"
    return f"| {where} | {counts} | {optimizers} | {rates} | {averages} | {numbers} | {how} |"


def _optimizer(own: Mapping[str, Any]) -> str:
    more = [f"decay {own['weight_decay']:g}"] if own["weight_decay"] else []
    more += [f"clip {own['clip']:g}"] if own["clip"] else []
    if not own["betas"]:
        return own["optimizer"]
    b1, b2 = own["betas"]
    return f"{own['optimizer']} ({', '.join([f'{b1:g}', f'{b2:.4g}', *more])})"


def _range(rates: Sequence[float]) -> str:
    """The rate at half of the training, and at its end where it is another."""
    half, end = rates[2], rates[3]
    return f"{half:g}" if half == end else f"{half:g}, at the end {end:g}"


if __name__ == "__main__":
    (HERE / "presets.md").write_text(render(json.loads((HERE.parent / "experiments" / "presets.json").read_text())))
