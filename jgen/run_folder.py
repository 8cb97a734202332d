"""The folder of a run: its config.json, read without trusting it."""

import json
from pathlib import Path
from typing import Any

from jgen.config.migrate import migrated
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
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error})") from error
    if not isinstance(stored, dict):
        raise UserError(f"{path}: is {type(stored).__name__}; must be settings by name")
    for name, kind in {"module": str, "preset": str, "config": dict}.items():
        if not isinstance(stored.get(name), kind):
            raise UserError(f"{path}: {name} is {stored.get(name)!r:.60}; is this a run of jgen?")
    return migrated(stored)
