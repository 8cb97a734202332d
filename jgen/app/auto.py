"""`train --preset auto`: settings chosen for the set that --data.name names, said a line each; options that are given win."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jgen import memory
from jgen.app.parsing import option_name
from jgen.config import DataConfig, leaves
from jgen.config.auto import SetFacts, Why
from jgen.config.ranges import shown

Auto = Callable[[SetFacts, DataConfig, bool], tuple[Any, Why]]
"""(facts of the set, what is given of the data, whether there is an accelerator) -> (config, why it is so)."""
NOTHING_GIVEN = DataConfig("", batch_size=0)


class Choice(NamedTuple):
    """A config that was chosen, and the reasons."""

    config: Any
    why: Why
    head: str


def choose(auto: Auto, facts: SetFacts, given: DataConfig) -> Choice:
    """The settings for a set; given: what the user says of the data."""
    accelerator = memory.has_accelerators()
    config, why = auto(facts, given, accelerator)
    sizes = f"{facts.count:,} images of {facts.side} pixels and more, {facts.channels} channels, {facts.classes} classes"
    machine = (
        "an accelerator (JAX_PLATFORMS=cpu plans for CPUs)"
        if accelerator
        else "CPUs (JAX has no plugin for an accelerator here)"
    )
    return Choice(config, why, f"auto: {given.name}, {sizes}; on {machine}")


def reasons(choice: Choice, config: Any) -> list[str]:
    """A line for each setting that was chosen, or that the user gave in its place."""
    chosen, now = ({leaf.name: leaf.value for leaf in leaves(each)} for each in (choice.config, config))
    lines = [choice.head]
    for name, reason in choice.why.items():
        value = "" if isinstance(now[name], bool) else f" {shown(now[name])}"
        option = f"  {option_name(name, now[name])}{value}"
        lines.append(f"{option}: {reason}" if now[name] == chosen[name] else f"{option}: as given (else {shown(chosen[name])})")
    return lines
