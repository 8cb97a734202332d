"""The command `jgen`: lists the experiments and runs one, or a command about runs, data and scores.

    jgen list                                  the experiments, each with its paper and cost
    jgen EXPERIMENT [COMMAND] [OPTIONS]        as python -m experiments.EXPERIMENT, such as: jgen ddpm --preset fashion_mnist
    jgen train RUN [OPTIONS]                   goes on with a run, whatever experiment it is of
    jgen sample|evaluate RUN [OPTIONS]         images and scores of a run
    jgen invert|edit|mix|generate RUN ...      pictures of yours, by a run whose family does it
    jgen export RUN --to FORM                  a run taken elsewhere: weights, stablehlo or onnx
    jgen EXPERIMENT import --file FILE         a run made of published weights
    jgen serve RUN ...                         a page in the browser to play with runs
    jgen doctor                                versions, devices, data sets, optional packages of this machine
    jgen data list|show|prepare                sets of images
    jgen metrics compare|score|pairs|...       scores of any images
    jgen completion bash|zsh                   completion of these words: source <(jgen completion bash)

Every command shows its options with --help.
"""

import importlib
import runpy
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import jgen
from jgen.app.cli import OF_RUNS, one_line_errors
from jgen.app.experiments import NAMES, about
from jgen.config import newest_run
from jgen.errors import UserError, nearest
from jgen.run_folder import read_config

MODULES = {"data": "jgen.data", "metrics": "jgen.metrics"}
HELP = {"-h", "--help"}
TOOLS = {"completion": "jgen.app.completion", "doctor": "jgen.app.doctor", "serve": "jgen.app.serve_command"}


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    words = list(sys.argv[1:] if args is None else args)
    name = words.pop(0) if words else "--help"
    with one_line_errors():
        if name in ("-h", "--help", "help"):
            return print((__doc__ or "").strip())
        if name == "--version":
            return print(f"jgen {jgen.__version__}")
        if name == "list":
            if set(words) & HELP:
                return print("jgen list: shows the experiments, each with its paper and cost; it takes no options")
            if words:
                raise UserError(f"list {' '.join(words)}: takes no options")
            return show_experiments()
        known = ["list", *MODULES, *TOOLS, *OF_RUNS, *NAMES]
        if name == "import":
            raise UserError("import: is a command of an experiment, jgen EXPERIMENT import --file FILE")
        if name not in known:
            raise UserError(f"{name}: no such command{nearest(name, known)}; jgen list shows the experiments")
        if name in TOOLS:
            return importlib.import_module(TOOLS[name]).main(words)
        module = MODULES.get(name, f"experiments.{name}")
        if name in OF_RUNS:
            if words and words[0] in HELP:
                return print(
                    f"jgen {name} RUN [OPTIONS]: RUN is a run's folder, or newest; its options are those of the run's family.\n"
                    f"jgen {name} RUN --help shows them, and jgen EXPERIMENT {name} --help those of its newest run."
                )
            module, words = of_run(name, words)
    sys.argv = [f"python -m {module}", *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def of_run(command: str, words: list[str]) -> tuple[str, list[str]]:
    """(experiment's module, its arguments) of a command about a run. Raises UserError where it names none of jgen's."""
    if words[:1] == ["--run"]:
        words = words[1:]
    if not words or words[0].startswith("-"):
        other = "jgen EXPERIMENT to begin one" if command == "train" else f"jgen EXPERIMENT {command} for its newest one"
        raise UserError(f"{command}: name a run, jgen {command} RUN; or {other}")
    folder = newest_run(Path("runs"), "*/*") if words[0] == "newest" else Path(words[0])
    words = [str(folder), *words[1:]]
    module = read_config(folder)["module"]
    if module not in [f"experiments.{each}" for each in NAMES]:
        raise UserError(f"{words[0]}: is a run of {module}, which is none of jgen's experiments; python -m {module} {command}")
    return module, [command, "--run", *words]


def show_experiments() -> None:
    """Prints every experiment with its paper and cost."""
    table = Table()
    for column in ("experiment", "model and paper", "default preset"):
        table.add_column(column)
    for name in NAMES:
        table.add_row(*about(name))
    Console().print(table)
