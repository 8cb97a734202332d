"""Shared by the commands of the command line: the config of a run, the head of --help, and jax only when it is needed."""

import dataclasses
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any

import tyro

from jgen.config import MeshConfig, from_dict
from jgen.errors import UserError
from jgen.run_folder import read_config

HELP = {"-h", "--help"}
Presets = Mapping[str, Any]
Build = Callable[[Any], Any]


def commands() -> ModuleType:
    """The commands, which import jax: loaded only when the arguments are valid."""
    from jgen.app import runs

    return runs


def option(kind: Any, about: str) -> Any:
    """The type of an option that --help explains."""
    return Annotated[kind, tyro.conf.arg(help=about)]


def about(build: Build, module: str) -> str:
    """The head of --help: the model, its paper, and the commands."""
    title = (getattr(sys.modules[build.__module__], "__doc__", None) or module).splitlines()[0]
    there = "train (the default), sample, evaluate, export; where its family has them import, for published weights, and for "
    there += "pictures of yours invert, edit, mix, generate"
    return f"{title}\n\nCommands: {there}; python -m {module} COMMAND --help shows their options."


def short(module: str) -> str:
    """The name of an experiment, as `jgen NAME` takes it."""
    return module.split(".")[-1]


def config_of(kind: type, stored: dict[str, Any]) -> Any:
    """A run's config, but for the machines it ran on: this one may be another."""
    return dataclasses.replace(from_dict(kind, stored["config"]), mesh=MeshConfig())  # pyright: ignore[reportArgumentType]


def stored_config(folder: str | Path, module: str) -> dict[str, Any] | None:
    """The config.json of a run of this experiment; None where there is none."""
    if not (Path(folder) / "config.json").is_file():
        return None
    stored = read_config(Path(folder))
    if stored["module"] != module:
        raise UserError(f"run={folder}: is a run of {stored['module']}, not of {module}")
    return stored


def new_folder(module: str, name: str) -> Path:
    """The folder of a new run of this name. Raises UserError where there is one already."""
    folder = Path(name) if os.sep in name else Path("runs", short(module), name)
    if (folder / "config.json").exists():
        raise UserError(f"name={name}: {folder} holds a run; go on with it by train --run {folder}, or choose another name")
    return folder
