"""jgen's own experiments: name -> family, paper and cost, as `jgen list` shows them."""

import importlib
import pkgutil
from typing import Any, NamedTuple

import experiments

NAMES = tuple(sorted(module.name for module in pkgutil.iter_modules(experiments.__path__) if not module.name.startswith("_")))
"""The modules of the package `experiments`."""
running: dict[str, Any] = {}
"""The experiment whose commands this program runs (`jgen.main`): its name -> its Config and build."""


class About(NamedTuple):
    """A line of `jgen list`."""

    name: str
    what: str
    """The first line of the module's docstring: the model and its paper."""
    cost: str
    """The time of the default preset."""


def about(name: str) -> About:
    """The facts that an experiment's docstring states: model, paper, cost."""
    lines = (importlib.import_module(f"experiments.{name}").__doc__ or "").splitlines()
    command = next((line for line in lines if line.strip().startswith(f"python -m experiments.{name} ")), "")
    return About(name, lines[0] if lines else "", command.partition("#")[2].strip())
