"""The command `jgen`: lists the experiments and runs one, or the commands of data and metrics.

jgen list
jgen ddpm --preset fashion_mnist        # as python -m experiments.ddpm --preset fashion_mnist
jgen data list
jgen metrics compare A.json B.json
"""

import runpy
import sys

from rich.console import Console
from rich.table import Table

from jgen.app.cli import one_line_errors
from jgen.app.experiments import NAMES, about
from jgen.errors import UserError, nearest

MODULES = {"data": "jgen.data", "metrics": "jgen.metrics"}


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    words = list(sys.argv[1:] if args is None else args)
    name = words.pop(0) if words else "--help"
    with one_line_errors():
        if name in ("-h", "--help"):
            return print((__doc__ or "").strip())
        if name == "list":
            return show_experiments()
        known = ["list", *MODULES, *NAMES]
        if name not in known:
            raise UserError(f"{name}: no such command{nearest(name, known)}; jgen list shows the experiments")
    module = MODULES.get(name, f"experiments.{name}")
    sys.argv = [f"python -m {module}", *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def show_experiments() -> None:
    """Prints every experiment with its paper and cost."""
    table = Table()
    for column in ("experiment", "model and paper", "default preset"):
        table.add_column(column)
    for name in NAMES:
        table.add_row(*about(name))
    Console().print(table)
