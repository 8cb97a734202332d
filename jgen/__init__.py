"""jgen: classic image generative models in JAX and Flax.

`jgen.main(Config, build)` turns an experiment module into a command line, `jgen.load(folder)` brings a trained run
back into a notebook, and `jgen.samplers`, `jgen.models`, `jgen.objectives` are imported as functions.

Attributes load on first use, so that `--help` answers without importing jax.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "main": "jgen.cli",
    "load": "jgen.experiment",
    "Experiment": "jgen.experiment",
    "Stage": "jgen.experiment",
}
_MODULES = ("convert", "data", "metrics", "models", "nn", "objectives", "samplers", "schedules", "sigmas", "train", "types")


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jgen.{name}")
    raise AttributeError(f"module 'jgen' has no attribute {name!r}")
