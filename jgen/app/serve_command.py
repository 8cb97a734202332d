"""jgen serve RUN ...: a page in the browser to play with runs; it needs the extra "serve"."""

import dataclasses
import importlib
from importlib.util import find_spec
from typing import Annotated

import tyro

from jgen import memory
from jgen.app.parsing import parse
from jgen.config import check
from jgen.config.ranges import Range
from jgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Serve:
    """Opens a page to play with runs: samplers, seeds, styles, interpolations, completions. Ctrl-C ends it."""

    runs: tyro.conf.Positional[tuple[str, ...]]
    """Folders of runs, or of exported ones."""
    host: str = "127.0.0.1"
    """The address to listen at. Another one shows the page to whoever can reach this machine."""
    port: Annotated[int, Range(0, 65535)] = 7860
    """Its port; 0 for any that is free."""


def main(words: list[str]) -> None:
    """Opens the page. Raises UserError for a folder that holds no run, and where gradio is missing."""
    given = parse(Serve, "jgen serve", words, Serve.__doc__ or "")
    check(given)
    if not given.runs:
        raise UserError("serve: name at least one run, jgen serve RUN")
    if find_spec("gradio") is None:
        raise UserError("serve: needs gradio; pip install 'jgen[serve]'")
    memory.keep()
    importlib.import_module("jgen.app.serve").serve(given.runs, given.host, given.port)
