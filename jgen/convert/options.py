"""The options of the authors' configurations: every one is heeded, known to change nothing, or refused by name."""

from collections.abc import Collection, Mapping
from typing import Any

from jgen.errors import UserError, nearest

ANY = None
"""Stands for every value of an option that changes no number of the network."""


def check_options(
    given: Mapping[str, Any], heeded: Collection[str], allowed: Mapping[str, Collection[Any] | None], where: str
) -> None:
    """Raises UserError for an option that is neither heeded nor allowed, or whose value is none of those allowed.

    heeded: names that the caller reads. allowed: {name: values, or ANY}, of options that the caller need not read, or that it
    reads and that have no other values. where: what the options are of, for the message.
    """
    for name, value in given.items():
        if name in allowed:
            values = allowed[name]
            if values is not None and value not in values:
                raise UserError(f"{name}={value}: must be {' or '.join(map(str, values))} here")
        elif name not in heeded:
            raise UserError(f"{name}: no option of {where}{nearest(name, [*heeded, *allowed])}")


def required(given: Mapping[str, Any], names: Collection[str], where: str) -> None:
    """Raises UserError that lists the options which are missing."""
    missing = [name for name in names if name not in given]
    if missing:
        raise UserError(f"{', '.join(missing)}: missing in the options of {where}")
