"""The one error that is the user's to mend; the command line shows it as one line and exits with 2."""

import contextlib
import difflib
from collections.abc import Iterable, Iterator
from typing import Any


class UserError(ValueError):
    """Bad input: the message names the argument, what came, and what would be right, in one line.

    Names from files may hold anything: control characters and bytes that are no UTF-8 are shown escaped.
    """

    def __str__(self) -> str:
        text = super().__str__().encode("utf-8", "backslashreplace").decode()
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def in_stage(name: str) -> Iterator[None]:
    """A UserError from within says in which stage of an experiment it is."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{error}, in stage {name}") from error


def nearest(name: str, known: list[str], most: int = 3, cutoff: float = 0.5) -> str:
    """' (did you mean a, b?)' for the known names closest to `name`, or '' where none is close; cutoff: higher in a long list.

    >>> nearest("fashion-mnist", ["digits", "fashion_mnist"])
    ' (did you mean fashion_mnist?)'
    """
    close = difflib.get_close_matches(name, sorted(set(known)), n=most, cutoff=cutoff)
    return f" (did you mean {', '.join(close)}?)" if close else ""


def not_among(value: Any, choices: Iterable[Any]) -> str:
    """Says that a value is none of the choices, with the nearest; "" where it is one.

    >>> not_among("huen", ["ddim", "heun"])
    'must be one of ddim, heun (did you mean heun?)'
    """
    known = list(choices)
    return "" if value in known else f"must be one of {', '.join(map(str, known))}{nearest(str(value), list(map(str, known)))}"


def check_choice(choices: Iterable[Any], **given: Any) -> None:
    """Raises UserError that names an argument whose value is none of the choices."""
    for name, value in given.items():
        if problem := not_among(value, choices):
            raise UserError(f"{name}={value}: {problem}")
