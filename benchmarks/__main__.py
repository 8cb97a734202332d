"""python -m benchmarks [NAME ...] [--json FILE]: each benchmark in a process of its own, ratios in one run."""

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import (
    alias_free,
    class_gan,
    diffusion,
    diffusion_steps,
    editing,
    foundation,
    gan,
    latent,
    likelihood,
    metrics,
    score,
)
from benchmarks.timing import Row

BENCHMARKS = {
    name: run
    for part in (
        foundation,
        metrics,
        latent,
        diffusion,
        diffusion_steps,
        score,
        gan,
        class_gan,
        alias_free,
        likelihood,
        editing,
    )
    for name, run in part.BENCHMARKS.items()
}


def isolated(name: str) -> list[Row]:
    """Runs one benchmark in a process of its own, so that none inherits another's threads or memory."""
    with tempfile.NamedTemporaryFile("r", suffix=".json") as out:
        done = subprocess.run([sys.executable, "-m", "benchmarks", name, "--json", out.name, "--here"], check=False)
        if done.returncode:
            return [Row(name, float("nan"), "", "", False, f"failed with exit code {done.returncode}")]
        return [Row(**row) for row in json.load(out)]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(BENCHMARKS)):
        parser.error(f"{unknown[0]}: no such benchmark; there are {', '.join(BENCHMARKS)}")
    if options.here:
        from jgen.config import MeshConfig
        from jgen.train.distributed import start

        start(MeshConfig())
        rows = [row for name in options.names for row in BENCHMARKS[name]()]
    else:
        rows = [row for name in options.names or BENCHMARKS for row in isolated(name)]
        table = Table(title=f"benchmarks, {time.strftime('%Y-%m-%d')}", title_justify="left")
        for column in ("name", "value", "unit", "aim", "met", "detail"):
            table.add_column(column, justify="right" if column == "value" else "left")
        for row in rows:
            met = "" if row.met is None else "yes" if row.met else "no"
            table.add_row(row.name, f"{row.value:.3f}", row.unit, row.aim, met, row.detail)
        Console(width=180 if not sys.stdout.isatty() else None).print(table)
    if options.json:
        Path(options.json).write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=2))


if __name__ == "__main__":
    main()
