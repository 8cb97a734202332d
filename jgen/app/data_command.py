"""python -m jgen.data list | show NAME | prepare NAME."""

import dataclasses
from types import ModuleType
from typing import Literal

import tyro

from jgen.app.cli import one_line_errors
from jgen.app.parsing import parse_command
from jgen.config import Count, Natural, check

SHOWN = 64


@dataclasses.dataclass(frozen=True)
class List:
    """The sets there are: built in, on this machine, and all that TFDS knows."""

    root: str = ""
    """data_dir of TFDS."""


@dataclasses.dataclass(frozen=True)
class Show:
    """Writes a contact sheet of a set and prints what it holds."""

    name: tyro.conf.Positional[str]
    """digits, stacked_digits, glyphs, fashion_mnist, emoji, emoji:portraits, emoji:noto, idx:FOLDER, folder:FOLDER, or any TFDS
    name."""
    out: str = ""
    """The PNG to write; NAME.png where none is given."""
    num: Count = SHOWN
    """Images on the sheet, evenly spread over the set."""
    resolution: Natural = 0
    """Side of the images in pixels; 0: as the set has them, 64 of a folder."""
    channels: Literal[0, 1, 3] = 0
    """1: grey, 3: in colour; 0: as the set has them, 3 of a folder."""
    split: str = "train"
    """train, test, or another that the set has."""
    skip_bad: bool = False
    """Pass over files that can't be read, and count them."""
    root: str = ""
    """Folder of the set's files; of TFDS its data_dir."""


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Makes the TFDS copy of IDX files or of a folder, or downloads a TFDS set; stock TFDS then opens it. Fetches emoji."""

    name: tyro.conf.Positional[str]
    """emoji, fashion_mnist, idx:FOLDER, folder:FOLDER, or any TFDS name."""
    resolution: Count = 64
    """Side of a folder's images, in pixels."""
    channels: Literal[1, 3] = 3
    """Channels of a folder's images."""
    skip_bad: bool = False
    """Pass over files that can't be read, and count them."""
    root: str = ""
    """data_dir of TFDS; of emoji, the folder for its pictures."""


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    with one_line_errors():
        command = parse_command("jgen.data", {"list": List, "show": Show, "prepare": Prepare}, args)
        check(command)
        commands_of = _commands()
        {List: commands_of.show_list, Show: commands_of.show, Prepare: commands_of.make}[type(command)](command)


def _commands() -> ModuleType:
    """The commands, which import jax and TFDS: loaded only when the arguments are valid."""
    from jgen.app import sets

    return sets
