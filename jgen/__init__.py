"""jgen: classic image generative models in JAX and Flax.

`jgen.main(Config, build)` turns an experiment module into a command line, `jgen.load(folder)` brings a trained run
back into a notebook, and `jgen.samplers`, `jgen.models`, `jgen.objectives` are imported as functions.

Attributes load on first use, so that `--help` answers without importing jax.
"""

import importlib
from typing import Any

__version__ = "0.2.0"

_NAMES = {
    "main": "jgen.app.cli",
    "load": "jgen.app.load",
    "load_sampler": "jgen.app.export",
    "Run": "jgen.app.load",
    "Experiment": "jgen.train.stage",
    "Stage": "jgen.train.stage",
}
_MODULES = (
    "config", "convert", "data", "edit", "metrics", "models", "nn", "objectives", "pictures", "recipes", "samplers",
    "schedules", "sde", "sigmas", "train", "types",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"jgen.{name}")
    raise AttributeError(f"module 'jgen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*_NAMES, *_MODULES, "__version__"])
