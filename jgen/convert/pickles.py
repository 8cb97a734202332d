"""Pickles read as data: a small machine for the opcodes that containers and tensors need, which imports and runs nothing.

Python's own unpickler imports what a file names, and a file can make it take memory without end or crash. Here a name in the
file stands for one of the caller's own functions or for nothing at all, and memory and time are in proportion to the file.
"""

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from jgen.errors import UserError
from jgen.untrusted import Budget

OPERATION = 64
"""Bytes that one operation is counted as."""
ARGUMENTS = 16
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG1", "FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES",
    "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
}  # fmt: skip
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
MARK = object()


class Function(NamedTuple):
    """A function that a name in the file stands for, and that the file may call."""

    call: Callable[..., Any]


Resolve = Callable[[str, str], Any]
"""(module, name) -> a `Function`, or a value that can't be called. Raises UserError for every other name."""


def refuse_ids(pid: Any) -> Any:
    """For files whose objects lie all in the stream."""
    raise ValueError("it refers to an object outside of the pickle")


def unpickle(file: BinaryIO, resolve: Resolve, budget: Budget, persistent: Callable[[Any], Any] = refuse_ids) -> Any:
    """The value of the pickle at the file's position, which is left behind its end.

    persistent: makes the object of a persistent id. Raises UserError for what `resolve` refuses, for opcodes and keys that
    data does not need, and where the budget is spent; ValueError or IndexError for a damaged stream.
    """
    machine = _Machine(resolve, budget, persistent)
    for opcode, argument, _ in pickletools.genops(file):
        budget.take(OPERATION)
        machine.step(opcode.name, argument)
    (value,) = machine.stack
    return value


class _Machine:
    def __init__(self, resolve: Resolve, budget: Budget, persistent: Callable[[Any], Any]):
        self.resolve, self.budget, self.persistent = resolve, budget, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def step(self, name: str, argument: Any) -> None:
        if name in VALUES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name])
        elif name in TUPLES:
            self.stack.append(tuple(self._top(TUPLES[name])))
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self.stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            self.stack.append(self.memo[argument])
        elif name == "GLOBAL":
            self.stack.append(self.resolve(*_words(argument.split(" "))))
        elif name not in ("PROTO", "FRAME", "STOP"):
            action = getattr(self, f"_{name.lower()}", None)
            if action is None:
                raise UserError(f"{self.budget.path}: refused, its pickle uses {name}, which weights do not need")
            action()

    def _top(self, count: int) -> list[Any]:
        if count > len(self.stack) or any(value is MARK for value in self.stack[-count:]):
            raise ValueError("the stream takes more than it has put down")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        taken = []
        while (value := self.stack.pop()) is not MARK:
            taken.append(value)
        return taken[::-1]

    def _mark(self) -> None:
        self.stack.append(MARK)

    def _pop(self) -> None:
        self.stack.pop()

    def _pop_mark(self) -> None:
        self._marked()

    def _memoize(self) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _empty_list(self) -> None:
        self.stack.append([])

    def _empty_dict(self) -> None:
        self.stack.append({})

    def _empty_set(self) -> None:
        self.stack.append(set())

    def _list(self) -> None:
        self.stack.append(self._marked())

    def _tuple(self) -> None:
        self.stack.append(tuple(self._marked()))

    def _dict(self) -> None:
        values = self._marked()
        self.stack.append({})
        self._set(values)

    def _append(self) -> None:
        values = self._top(1)
        self._of_kind(self.stack[-1], list).extend(values)

    def _appends(self) -> None:
        values = self._marked()
        self._of_kind(self.stack[-1], list).extend(values)

    def _additems(self) -> None:
        values = self._marked()
        self._of_kind(self.stack[-1], set).update(_key(value) for value in values)

    def _setitem(self) -> None:
        self._set(self._top(2))

    def _setitems(self) -> None:
        self._set(self._marked())

    def _of_kind(self, value: Any, kind: type) -> Any:
        if not isinstance(value, kind):
            raise ValueError(f"the stream takes a {type(value).__name__} for a {kind.__name__}")
        return value

    def _set(self, values: list[Any]) -> None:
        into = self._of_kind(self.stack[-1], dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            into[_key(key)] = value

    def _stack_global(self) -> None:
        self.stack.append(self.resolve(*_words(self._top(2))))

    def _binpersid(self) -> None:
        self.stack.append(self.persistent(*self._top(1)))

    def _reduce(self) -> None:
        function, arguments = self._top(2)
        self.stack.append(self._call(function, arguments, {}))

    def _newobj(self) -> None:
        self._reduce()

    def _newobj_ex(self) -> None:
        self.stack.append(self._call(*self._top(3)))

    def _call(self, function: Any, arguments: Any, named: Any) -> Any:
        if not isinstance(function, Function):
            raise ValueError("the stream calls what is no function")
        if max(len(self._of_kind(arguments, tuple)), len(self._of_kind(named, dict))) > ARGUMENTS:
            raise ValueError(f"the stream calls a function with more than {ARGUMENTS} arguments")
        return function.call(*arguments, **{str(k): v for k, v in named.items()})

    def _build(self) -> None:
        (state,) = self._top(1)
        build = getattr(self.stack[-1], "build", None)
        if build is not None:
            build(state)
        elif not isinstance(self.stack[-1], dict):  # the attributes of a dict, such as a state dict's _metadata, are not needed
            raise ValueError("the stream gives a state to what has none")


def _words(parts: list[Any]) -> tuple[str, str]:
    module, name = parts
    if not (isinstance(module, str) and isinstance(name, str)):
        raise ValueError("the stream names a function by what is no text")
    return module, name


def _key(value: Any) -> Any:
    """A key of a dict; those whose hashes take long or can be made to collide are refused."""
    if value is None or isinstance(value, str | bytes) or (isinstance(value, int) and abs(value) < 2**31):
        return value
    raise ValueError(f"a key of a dict is a {type(value).__name__}")


def refused(path: Path, module: str, name: str, what: str) -> UserError:
    """The error for a name that is none of those allowed."""
    return UserError(f"{path}: refused, the file asks to load {module}.{name}, which is {what}")
