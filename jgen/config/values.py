"""Configs as JSON and back, what differs between two, and options changed by their names."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from jgen.config.ranges import check, fault, leaves, shown, without_prefix
from jgen.config.samplers import SAMPLERS, Solver, switched
from jgen.errors import UserError, nearest

T = TypeVar("T")

NOT_COMPARED = (
    "mesh.", "sampling.", "data.workers", "data.root",
    *(f"train.{name}" for name in
      ("log_every", "save_every", "sample_every", "keep_last", "keep_best", "max_bad_steps", "scan", "wandb")),
)  # fmt: skip
"""Where and how often something is written, and on what it runs, changes no number of a run."""


def to_dict(config: Any) -> dict[str, Any]:
    """A config as plain JSON values; a sampler's options with its name."""

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(plain, value))
        return to_dict(value) if dataclasses.is_dataclass(value) else value

    values = {f.name: plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return {"sampler": config.sampler, **values} if isinstance(config, Solver) else values


def from_dict(kind: type[T], values: Any, path: str = "") -> T:
    """The config of a type that `to_dict` wrote, read back from JSON. Raises UserError for anything that is not one.

    >>> from jgen.config import MeshConfig
    >>> from_dict(MeshConfig, {"fsdp": 4}).fsdp
    4
    """
    if not isinstance(values, Mapping):
        raise UserError(f"config: {path[:-1] or 'it'} is {values!r:.60}; must be settings by name")
    values = dict(values)
    if issubclass(kind, Solver):
        name = values.pop("sampler", None)
        if not isinstance(name, str) or name not in SAMPLERS:
            raise UserError(f"config: {path}sampler={name!r:.60}: must be one of {', '.join(SAMPLERS)}")
        kind = typing.cast(type[T], SAMPLERS[name])
    hints = typing.get_type_hints(kind, include_extras=True)
    known = {f.name for f in dataclasses.fields(kind)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - known):
        raise UserError(f"config: {path}{unknown[0]} is not a field of {kind.__name__}; was it written by another version?")
    return kind(**{name: _value(hints[name], value, f"{path}{name}") for name, value in values.items()})


def _value(hint: Any, value: Any, path: str) -> Any:
    bare = typing.get_args(hint)[0] if typing.get_origin(hint) is Annotated else hint
    if dataclasses.is_dataclass(bare):
        return from_dict(bare, value, f"{path}.")  # pyright: ignore[reportArgumentType]
    if typing.get_origin(bare) is tuple and isinstance(value, (list, tuple)):
        of_items = typing.get_args(bare)[0]
        value = tuple(_value(of_items, each, f"{path}.{i}") for i, each in enumerate(value))
    elif typing.get_origin(bare) in (typing.Union, types.UnionType) and isinstance(value, list):
        value = tuple(value)
    if not (isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0])) and (problem := fault(hint, value)):
        raise UserError(f"config: {path}={value!r:.60}: {problem}")
    return value


def differences(old: Any, new: Any) -> list[str]:
    """'option: old -> new' for every option of two configs of a type that changes a run's numbers and differs.

    >>> from jgen.config import TrainConfig
    >>> differences(TrainConfig(steps=5, scan=1), TrainConfig(steps=6, scan=2))
    ['steps: 5 -> 6', 'scan: 1 -> 2']
    """
    before, now = ({leaf.name: leaf.value for leaf in leaves(config)} for config in (old, new))
    return [
        f"{name}: {shown(before.get(name))} -> {shown(now.get(name))}"
        for name in {**before, **now}
        if before.get(name) != now.get(name) and not name.startswith(NOT_COMPARED)
    ]


def changed(options: T, changes: Mapping[str, Any]) -> T:
    """Options with some replaced by their names, whatever group they stand in; sampler= takes another sampler.

    Raises UserError for a name that there is none of (with those there are), and for values out of range.
    """
    changes = dict(changes)
    if (name := changes.pop("sampler", None)) is not None:
        options = with_sampler(options, name)
    known = {leaf.name for leaf in leaves(options)}
    if unknown := sorted(set(changes) - known):
        close = nearest(unknown[0], sorted(known))
        raise UserError(f"{unknown[0]}: no such sampling option{close}; there are {', '.join(sorted(known))}")
    found = _replaced(options, changes)
    check(found)
    return found


def with_sampler(options: Any, name: str) -> Any:
    """Options of sampling with another sampler. Raises UserError where none can be chosen, or none has this name."""
    if not hasattr(options, "solver"):
        raise UserError(f"sampler={name}: this model has one way of sampling only")
    return dataclasses.replace(options, solver=switched(options.solver, name, options.coordinates))


def _replaced(options: Any, changes: Mapping[str, Any], prefix: str = "") -> Any:
    """Options with those replaced whose names, as `leaves` has them, are among the changes."""
    hints, new = typing.get_type_hints(type(options), include_extras=True), {}
    for field in dataclasses.fields(options):
        value, name = getattr(options, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            new[field.name] = _replaced(value, changes, prefix if without_prefix(hints[field.name]) else f"{name}.")
        elif isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            new[field.name] = tuple(_replaced(each, changes, f"{name}.{i}.") for i, each in enumerate(value))
        elif name in changes:
            new[field.name] = changes[name]
    return dataclasses.replace(options, **new)


def newest_run(root: Path, pattern: str = "*") -> Path:
    """The run folder below `root` that was begun last; raises UserError where there is none."""
    runs = sorted(root.glob(f"{pattern}/config.json"), key=lambda p: p.stat().st_mtime)
    if not runs:
        raise UserError(f"no run in {root.absolute()}: train one first, or name a folder with --run")
    return runs[-1].parent
