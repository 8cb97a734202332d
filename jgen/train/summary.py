"""The cost of a run, without running it: parameters, FLOPs and peak memory of a compiled step."""

from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from jgen.config.train import Accelerator
from jgen.train import estimate
from jgen.train.compiled import Compiled, compile_stage
from jgen.train.flops import flops
from jgen.train.loop import check
from jgen.train.stage import Stage, batch_shapes, count

EIGHT = 8
"""Accelerators of an estimate: one machine of most kinds."""


def dry_run(stage: Stage, mesh: Mesh, console: Console | None = None, memory: bool = False) -> dict[str, float]:
    """Prints the parameter table and the cost of a step of a stage; returns parameters, flops and, with memory, peak bytes.

    FLOPs are of the whole batch, with convolutions by the book and updates of every k-th step at 1/k, and need no compilation;
    peak memory is of one device, as XLA plans it when it compiles the step.
    """
    check(stage, mesh)
    compiled = compile_stage(stage, mesh)
    table = Table(title=f"{stage.name}: parameters", title_justify="left")
    for column in ("player", "module", "numbers"):
        table.add_column(column, justify="right" if column == "numbers" else "left")
    for player, tree in compiled.shapes.params.items():
        for name, part in tree.items() if isinstance(tree, dict) else [("", tree)]:
            table.add_row(player, name, f"{count(part):,}")
    total = count(compiled.shapes.params)
    table.add_section()
    table.add_row("all", "", f"{total:,}")
    cost = flops(stage, compiled.shapes)
    console = console or Console()
    console.print(table)
    found = {"parameters": total, "flops": cost}
    taken = ""
    if memory:
        found["peak_bytes"] = peak = _peak_bytes(compiled, stage)
        taken = f" and at most {peak / 2**20:.0f} MiB a device"
    console.print(
        f"{stage.name}: {total / 1e6:.3f} M parameters; a step of {stage.data.batch_size} images takes "
        f"{cost / 1e9:.2f} GFLOP{taken}, on {mesh.size} device(s)"
        f"{'' if memory else '; --dry-run-memory compiles it and shows its memory'}",
        soft_wrap=True,
    )
    return found


def show_estimate(
    stage: Stage, stage_with: estimate.StageWith, flops: float, kind: Accelerator, console: Console | None = None
) -> dict[str, float]:
    """Prints the memory and the days of a stage's training on eight accelerators of a kind, and what makes it fit.

    Of eight, as many are counted as divide the batch. stage_with: the stage under other settings. Returns bytes a device and
    days.
    """
    device, now = estimate.DEVICES[kind], estimate.Change(stage.train.dtype, stage.train.remat, stage.train.accumulate, 1)
    batch = stage.data.batch_size
    count = estimate.devices_for(batch // now.accumulate, EIGHT)
    memory_of = estimate.memory_by_settings(stage_with, now, count)
    found = memory_of(*now[:3])
    days = estimate.days(flops, stage.train.steps, device, stage.train.dtype, count)
    parts = ", ".join(f"{name} {_gigabytes(value)}" for name, value in found._asdict().items())
    fewer = "" if count == EIGHT else f" (--mesh.devices {count}: {EIGHT} do not divide a batch of {batch})"
    text = f"on each of {count} {kind} of {device.memory / 1e9:.0f} GB{fewer}: about {_gigabytes(found.total)} GB ({parts}"
    if not now.remat:
        least = memory_of(now.dtype, True, now.accumulate).activations
        text += f", or {_gigabytes(least)} with --train.remat" if least < found.activations else ""
    text += f"), {_duration(days)} in all at {estimate.BUSY:.0%} of the peak"
    if found.total > device.memory:
        flags = estimate.advice(memory_of, stage, now, count, device.memory)
        text += f"; it does not fit, with {flags} it does" if flags else "; it does not fit: take a smaller batch"
    (console or Console()).print(f"{stage.name}: {text}", soft_wrap=True)
    return {"bytes": found.total, "days": days}


def _gigabytes(value: float) -> str:
    """Bytes as a number of 1e9, with two digits or all before the point.

    >>> _gigabytes(277.4e9), _gigabytes(1.234e9)
    ('277', '1.2')
    """
    number = value / 1e9
    return f"{number:.0f}" if number >= 100 else f"{number:.2g}"


def _duration(days: float) -> str:
    """Days, or hours or minutes where they are fewer.

    >>> _duration(2.26), _duration(0.25), _duration(0.01), _duration(0.0004)
    ('2.3 days', '6 hours', '14 minutes', 'a minute')
    """
    if days >= 1:
        return f"{days:.2g} days"
    if days >= 1 / 24:
        return f"{days * 24:.2g} hours"
    return f"{days * 1440:.0f} minutes" if days * 1440 >= 1.5 else "a minute"


def _peak_bytes(compiled: Compiled, stage: Stage) -> int:
    program = compiled.step.lower(compiled.shapes, jax.random.key(0), batch_shapes(stage)).compile()
    found: Any = program.memory_analysis()
    # Donated inputs and outputs share their bytes.
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
