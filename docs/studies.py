"""Shared by the studies of docs: trainings in processes of their own, and measurements that join a file one by one."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

TIMED = 40, 240
"""Steps of two runs; a step's time is what the longer one takes longer."""


class Side(NamedTuple):
    """One training."""

    experiment: str
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"`{' '.join((self.experiment, *self.flags))}`"


def trained(side: Side, preset: str, folder: Path, seed: int, steps: int = 0) -> Path:
    """A run's folder, after its training in a process of its own; steps: other than the preset's."""
    flags = ["--preset", preset, "--name", str(folder), "--train.seed", str(seed), "--train.sample-every", "0", *side.flags]
    flags += ["--train.steps", str(steps), "--train.save-every", str(steps)] if steps else []
    subprocess.run([sys.executable, "-m", f"experiments.{side.experiment}", *flags], check=True, stdout=subprocess.DEVNULL)
    return folder


@cache
def milliseconds(side: Side, preset: str) -> float:
    """The CPU time of a step, from what more steps take longer: that of a clock would be other programs' too."""
    spent = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, steps in enumerate((TIMED[0], *TIMED)):  # the first one compiles
            began = _spent()
            trained(side, preset, Path(folder) / str(i), 0, steps)
            spent[steps] = _spent() - began
    few, many = TIMED
    return 1e3 * (spent[many] - spent[few]) / (many - few)


def _spent() -> float:
    """CPU seconds of the processes that were begun from here and have ended."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime


def parser_of(about: str | None, what: str) -> argparse.ArgumentParser:
    """The arguments of a study: names of some of its kind of thing, and seeds."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar=what.upper())
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds from 0 on; those in the file are passed over")
    return parser


def parsed(parser: argparse.ArgumentParser, what: str, known: Iterable[str]) -> argparse.Namespace:
    """What was given; all that is known where no name is. Ends with a message for a name that is not known."""
    given, known = parser.parse_args(), list(known)
    if unknown := sorted(set(given.names) - set(known)):
        parser.error(f"{unknown[0]}: no such {what}; there are {', '.join(known)}")
    given.names = given.names or known
    return given


def read(file: Path) -> list[dict[str, Any]]:
    """The measurements of a file."""
    return json.loads(file.read_text())


def measured(file: Path, wanted: Iterable[Mapping[str, Any]], measure: Callable[..., dict[str, Any]]) -> None:
    """Measures what is wanted, each by the facts that name it, and joins it to the file; what is there is passed over."""
    for each in wanted:
        if any(each.items() <= found.items() for found in read(file)):
            continue
        found = {**each, **measure(**each)}
        file.write_text("[\n" + ",\n".join(json.dumps(one) for one in [*read(file), found]) + "\n]\n")
        print(json.dumps(found))
