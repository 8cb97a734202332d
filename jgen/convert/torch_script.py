"""TorchScript programs' weights: the tensors of the module that the program's archive holds, without its code.

The archive is a zip like that of a checkpoint. Its data.pkl holds an object of the program's own classes, whose state is its
parameters, buffers and submodules by name. Every such object becomes a record of its state: the code of the classes, which lies
beside it, is not read. Names are those of the state dict of the module.
"""

from typing import Any

import numpy as np

from jgen.convert.pickles import OPERATION, Function
from jgen.errors import UserError
from jgen.untrusted import Budget

PROGRAM = "__torch__."
"""Begins the names of a program's own classes."""
DEPTH = 64
"""Modules inside one another at most."""
LISTS = ("build_intlist", "build_doublelist", "build_boollist", "build_tensorlist")
"""Functions of torch.jit._pickle that only say a list's type."""


class Module:
    """An object of a program's class: its state, as the file gives it."""

    def __init__(self) -> None:
        self.state: dict[Any, Any] = {}

    def build(self, state: Any) -> None:
        """Takes the state. Raises ValueError for one that is no dict."""
        if not isinstance(state, dict):
            raise ValueError("the stream gives a module a state that is no dict")
        self.state = state


def program_names() -> dict[tuple[str, str], Any]:
    """The functions that a program's data.pkl calls, beside those of tensors: they mark types of lists and dicts."""
    lists = {("torch.jit._pickle", name): Function(lambda values: values) for name in LISTS}
    return {**lists, ("torch.jit._pickle", "restore_type_tag"): Function(lambda value, tag: value)}


def is_program_class(module: str) -> bool:
    """Whether a name is that of a class of the program itself, which stands for a `Module`."""
    return module == PROGRAM[:-1] or module.startswith(PROGRAM)


def state_dict(root: Module, budget: Budget) -> dict[str, np.ndarray]:
    """{dotted name: array} of a module and those inside it.

    Raises UserError for modules that hold themselves or lie too deep, and where the budget is spent.
    """
    found: dict[str, np.ndarray] = {}
    left: list[tuple[str, Module, int]] = [("", root, 0)]
    while left:
        prefix, module, depth = left.pop()
        if depth > DEPTH:
            raise UserError(f"{budget.path}: refused, its modules lie more than {DEPTH} deep in one another")
        for name, value in module.state.items():
            budget.take(OPERATION + len(prefix))
            if isinstance(value, np.ndarray):
                found[f"{prefix}{name}"] = value
            elif isinstance(value, Module):
                left.append((f"{prefix}{name}.", value, depth + 1))
    return found
