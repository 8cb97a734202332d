"""The cost of a run, without running it: parameters, FLOPs and peak memory of a compiled step."""

from dataclasses import replace
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console
from rich.table import Table

from jgen.nn import winograd
from jgen.train.loop import Compiled, check, compile_stage
from jgen.train.stage import Stage, batch_shapes, count


def dry_run(stage: Stage, mesh: Mesh, console: Console | None = None, memory: bool = False) -> dict[str, float]:
    """Prints the parameter table and the cost of a step of a stage; returns parameters, flops and, with memory, peak bytes.

    FLOPs are of the whole batch, with convolutions by the book, and need no compilation; peak memory is of one device, as XLA
    plans it when it compiles the step.
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
    cost = flops(stage, mesh)
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


def _peak_bytes(compiled: Compiled, stage: Stage) -> int:
    program = compiled.step.lower(compiled.shapes, jax.random.key(0), batch_shapes(stage)).compile()
    found: Any = program.memory_analysis()
    # Donated inputs and outputs share their bytes.
    return found.temp_size_in_bytes + found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes


def flops(stage: Stage, mesh: Mesh) -> float:
    """Floating-point operations of a step on the whole batch, whatever a backend makes of it."""
    # XLA counts the body of a loop once, so these are of a step without any.
    stage = replace(stage, train=replace(stage.train, scan=1, accumulate=1))
    compiled = compile_stage(stage, mesh)
    with winograd.off():
        step = compiled.step.lower(compiled.shapes, jax.random.key(0), batch_shapes(stage))
    return (step.cost_analysis() or {}).get("flops", float("nan"))
