"""Ranges of the options' numbers: declared once, on the field, and checked in one place.

    steps: Count = 50
    eta: Share = 0.0

`check` walks a config and raises the first fault by the name of its option, for every experiment alike.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple, TypeVar

import tyro

from jgen.errors import UserError, not_among

T = TypeVar("T")

Flat = Annotated[T, tyro.conf.OmitArgPrefixes]
"""A group whose options carry no prefix: `network: Flat[UNetConfig]` gives --channels, in a group of the help of its own."""

Inline = Annotated[T, tyro.conf.arg(name="")]
"""A group whose options stand among those of the group around it, with that one's prefix."""


@dataclass(frozen=True)
class Range:
    """An interval of numbers, with or without its ends; on a tuple, of each of its items."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        return above and (value < self.high if self.open_high else value <= self.high)

    def __str__(self) -> str:
        """As an error says it.

        >>> str(Range(0, 1, open_high=True)), str(Range(1)), str(Range(0, open_low=True))
        ('from 0 to below 1', 'at least 1', 'above 0')
        """
        low, high = (f"{int(end)}" if float(end).is_integer() else f"{end:g}" for end in (self.low, self.high))
        if math.isinf(self.high):
            return f"{'above ' if self.open_low else 'at least '}{low}"
        return f"from {'above ' if self.open_low else ''}{low} to {'below ' if self.open_high else ''}{high}"


@dataclass(frozen=True)
class Items:
    """How many items a row of values may have: any number but none, unless given."""

    counts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Traced:
    """Marks an option whose value a compiled sampler takes as an argument, so that another value compiles nothing.

    The sampler may compute with it, but not branch by it.
    """


Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Share = Annotated[float, Range(0, 1)]
ShareBelowOne = Annotated[float, Range(0, 1, open_high=True)]
Seed = Annotated[int, Range(0, 2**31 - 1)]


class Leaf(NamedTuple):
    """One option of a config."""

    name: str
    """As it is typed, but with underscores: train.log_every, channels, stages.0.steps."""
    hint: Any
    value: Any


def leaves(config: Any, prefix: str = "") -> Iterator[Leaf]:
    """The options of a config, groups within groups, in the order of their fields."""
    hints = typing.get_type_hints(type(config), include_extras=True)
    for field in dataclasses.fields(config):
        hint, value = hints[field.name], getattr(config, field.name)
        name = f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value):
            yield from leaves(value, prefix if without_prefix(hint) else f"{name}.")
        elif isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            for i, each in enumerate(value):
                yield from leaves(each, f"{name}.{i}.")
        else:
            yield Leaf(name, hint, value)


def without_prefix(hint: Any) -> bool:
    """Whether the options of a group have no name of the group before theirs (`Flat`)."""
    marks = getattr(hint, "__metadata__", ())
    return any(mark is tyro.conf.OmitArgPrefixes or getattr(mark, "name", None) == "" for mark in marks)


def check(config: Any, prefix: str = "") -> None:
    """Raises UserError for the first option that is of another type, not finite, out of its range, or none of its choices.

    prefix: what stands before the names, such as "sampling." for options that are a group of a larger config.
    """
    for leaf in leaves(config, prefix):
        if problem := fault(leaf.hint, leaf.value):
            raise UserError(f"{leaf.name}={shown(leaf.value)}: {problem}")


def shown(value: Any) -> str:
    """A value as it is typed: the items of a tuple side by side."""
    return " ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


def fault(hint: Any, value: Any, range_: Range | None = None) -> str:
    """Says what is wrong with a value of an annotated type: "" where nothing is."""
    if typing.get_origin(hint) is Annotated:
        own = next((mark for mark in hint.__metadata__ if isinstance(mark, Range)), range_)
        items = next((mark.counts for mark in hint.__metadata__ if isinstance(mark, Items)), None)
        if items == () and value == ():
            return "must have at least one value"
        if items and isinstance(value, tuple) and len(value) not in items:
            return f"must have {' or '.join(map(str, items))} values"
        return fault(typing.get_args(hint)[0], value, own)
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        rest = [each for each in args if each is not type(None)]
        return "" if value is None and len(rest) < len(args) else fault(rest[0], value, range_)
    if origin is tuple:
        if not isinstance(value, tuple):
            return "must be a row of values"
        return next(filter(None, (fault(args[0], each, range_) for each in value)), "")
    if origin is Literal:
        return not_among(value, args)
    return _plain_fault(hint, value, range_)


def _plain_fault(kind: Any, value: Any, range_: Range | None) -> str:
    names = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
    if kind not in names:
        return ""
    good = (int, float) if kind is float else kind
    if not isinstance(value, good) or (isinstance(value, bool) and kind is not bool):
        return f"must be {names[kind]}"
    if kind is float and not math.isfinite(value):
        return f"must be {f'a number {range_}' if range_ else 'a finite number'}"
    return "" if range_ is None or value in range_ else f"must be {range_}"
