"""jgen doctor: what this machine has for jgen, a line each; ends with 1 where something that is needed does not work."""

import importlib
import os

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from jgen import memory
from jgen.errors import UserError

MARKS = {"ok": "✓", "note": "–", "bad": "✗"}


def allocation() -> tuple[str, str]:
    """(state, text): whether training keeps memory between steps, which is up to a third of its time on CPUs."""
    if memory.keep():
        return "ok", "freed memory is kept between steps"
    if memory.has_accelerators():
        return "ok", "left as it is, beside accelerators"
    own = any(name.startswith("MALLOC_") for name in os.environ) or "malloc" in os.environ.get("GLIBC_TUNABLES", "")
    return "note", f"left as it is: {'the environment sets it' if own else 'it is not glibc, or threads had started'}"


def main(words: list[str]) -> None:
    """Prints the findings; ends with 1 where one is bad."""
    if words in (["-h"], ["--help"]):
        return print((__doc__ or "").strip())
    if words:
        raise UserError(f"doctor {words[0]}: takes no options")
    malloc = allocation()  # before numpy starts threads
    found = importlib.import_module("jgen.app.examination").examine()
    table = Table(show_header=False)
    table.add_row(MARKS[malloc[0]], "malloc", malloc[1])
    for each in found:
        table.add_row(MARKS[each.state], each.name, escape(each.text))
    Console().print(table)
    if bad := [each for each in found if each.state == "bad"]:
        print(f"{len(bad)} of {len(found)} to be mended")
        raise SystemExit(1)
    return print("ready: jgen ddpm trains a first model")
