"""The folder of a run: its config.json, read without trusting it."""

import json
from pathlib import Path
from typing import Any

from jgen.config.migrate import FORMAT, migrated
from jgen.errors import UserError


def read_config(folder: Path) -> dict[str, Any]:
    """The content of a run's config.json: module, preset, config (in today's form), versions.

    Nothing it names is imported. Raises UserError where it can't be read or is not a run's.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: no run there (it has no config.json)")
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # other bytes than UTF-8, numbers too long, lists too deep
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(stored, dict):
        raise UserError(f"{path}: is {type(stored).__name__}; must be settings by name")
    for name, kind in {"module": str, "preset": str, "config": dict}.items():
        if not isinstance(stored.get(name), kind):
            raise UserError(f"{path}: {name} is {stored.get(name)!r:.60}; is this a run of jgen?")
    version = stored.get("format", 1)
    if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT:
        raise UserError(f"{path}: format is {version!r:.30}; this version of jgen reads 1 to {FORMAT}")
    try:
        return migrated(stored)
    except (TypeError, KeyError, AttributeError) as error:  # values of other types than any version wrote
        raise UserError(f"{path}: its settings are none of an earlier version ({type(error).__name__}: {error})") from error


WEIGHTS = "weights.safetensors"
"""The file of weights of a run that was exported."""
GENERATOR = "gan"
"""The folder inside an exported encoder that holds the run of the generator which it was trained for."""


def is_export(folder: Path) -> bool:
    """Whether a folder holds an exported run: weights without checkpoints, which samples but does not go on training."""
    return (folder / WEIGHTS).is_file()
