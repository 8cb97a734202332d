"""Values at the edges of every option's declared range build by shape, or end in one line that names the option.

    JGEN_EDGES=all pytest -m slow tests/config/test_edges.py

tries every edge of every option of every experiment; without it a few of each experiment are drawn.
"""

import os
import random
import typing

import pytest

from jgen.config.ranges import leaves
from jgen.errors import UserError
from tests import tiny
from tests.config.test_ranges import is_row, parts, replaced
from tests.shapes import by_shape

pytestmark = pytest.mark.slow

EDGES = os.environ.get("JGEN_EDGES", "3")
"""How many of an experiment, or all."""


def edges(leaf):
    """Values at the ends of a range, and sizes that divide nothing; those of a row also as one and as none."""
    kind, range_ = parts(leaf.hint)
    if typing.get_origin(kind) is typing.Literal:
        found = list(typing.get_args(kind))
    elif kind is bool:
        found = [False, True]
    elif kind is int and range_ is not None:
        found = [int(range_.low), int(range_.low) + 1, 7]
    elif kind is float and range_ is not None:
        found = [range_.low + (1e-6 if range_.open_low else 0), min(1e6, range_.high - (1e-6 if range_.open_high else 0))]
    else:
        found = []
    found = [value for value in found if range_ is None or value in range_]
    return [(value,) for value in found] + [()] if is_row(leaf.hint) else found


def attempts(config):
    return [(place, leaf, value) for place, leaf in enumerate(leaves(config)) for value in edges(leaf) if value != leaf.value]


def fault(module, config, leaf):
    """What is wrong with how a config ends: "" where it builds, or where one line names the option."""
    sampling = leaf.name.startswith("sampling.")
    apart = leaf.name.startswith(("train.", "mesh.", "data."))
    try:
        by_shape(module, config, losses=not sampling and not apart, samples=sampling)
    except UserError as error:
        group, _, name = leaf.name.rpartition(".")
        said = str(error).replace("-", "_")
        named = name in said or (bool(group) and said.startswith(f"{group}:"))  # of a group that there is none of
        return "" if named and "\n" not in str(error) else f"does not name the option: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    return ""


@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_edges_of_every_range_build_or_are_refused_by_name(name):
    config, module = tiny.parsed(name), tiny.module(name)
    tried = attempts(config)
    if EDGES != "all":
        tried = random.Random(name).sample(tried, int(EDGES))
    found = []
    for place, leaf, value in tried:
        if wrong := fault(module, replaced(config, place, value)[0], leaf):
            found.append(f"{leaf.name}={value}: {wrong}")
    assert not found, "\n".join(found)
