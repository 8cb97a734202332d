"""The functions of the table of samplers (`jgen.config.samplers`)."""

import importlib
from collections.abc import Callable
from typing import Any

from jgen.config.samplers import Solver


def function_of(solver: Solver | type[Solver]) -> Callable[..., Any]:
    """The function that a sampler's options name: MODULE.FUNCTION in jgen.samplers, or with the whole path elsewhere."""
    module, _, name = solver.function.rpartition(".")
    return getattr(importlib.import_module(module if "." in module else f"jgen.samplers.{module}"), name)
