"""python -m jgen.data list | show NAME | prepare NAME."""

import dataclasses
import sys
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from jgen.config import DataConfig, check_at_least
from jgen.errors import UserError

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
    """digits, glyphs, fashion_mnist, idx:FOLDER, folder:FOLDER, or any TFDS name."""
    out: str = ""
    """The PNG to write; NAME.png where none is given."""
    num: int = SHOWN
    """Images on the sheet."""
    resolution: int = 0
    channels: Literal[0, 1, 3] = 0
    split: str = "train"
    skip_bad: bool = False
    root: str = ""


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Makes the TFDS copy of IDX files or of a folder, or downloads a TFDS set; stock TFDS then opens it."""

    name: tyro.conf.Positional[str]
    """fashion_mnist, idx:FOLDER, folder:FOLDER, or any TFDS name."""
    resolution: int = 64
    """Of the images of a folder."""
    channels: Literal[1, 3] = 3
    """Of the images of a folder."""
    skip_bad: bool = False
    root: str = ""
    """data_dir of TFDS."""


def main(args: list[str] | None = None) -> None:
    """Runs one command; exits with 2 and one line for bad input."""
    commands = (
        Annotated[List, tyro.conf.subcommand("list")]
        | Annotated[Show, tyro.conf.subcommand("show")]
        | Annotated[Prepare, tyro.conf.subcommand("prepare")]
    )
    command = tyro.cli(commands, prog="python -m jgen.data", args=args)  # pyright: ignore[reportArgumentType]
    try:
        {List: show_list, Show: show, Prepare: make}[type(command)](command)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def show_list(command: List) -> None:
    from jgen.data.idx import fashion_mnist_folder
    from jgen.data.tfds_sets import data_dir, known_sets, prepared_sets

    table = Table(title="sets", title_justify="left")
    for column in ("name", "what", "ready"):
        table.add_column(column)
    table.add_row("digits", "1,797 handwritten digits, 8x8 grey (default)", "yes, comes with scikit-learn")
    table.add_row("glyphs", "characters in any font, colour, place: endless, 8 to 256 pixels", "yes, made as needed")
    ready = fashion_mnist_folder()
    table.add_row("fashion_mnist", "70,000 clothes, 28x28 grey", "yes" if ready else "apt-get install dataset-fashion-mnist")
    table.add_row("idx:FOLDER", "IDX files named as MNIST's", "")
    table.add_row("folder:FOLDER", "PNG, JPEG and WebP files, a class a subfolder", "")
    for name in prepared_sets(command.root):
        table.add_row(name, "prepared TFDS set", f"yes, in {data_dir(command.root)}")
    table.add_row("any TFDS name", f"{len(known_sets()):,} sets, such as cifar10, celeb_a, imagenet2012", "prepare NAME")
    Console().print(table)


def show(command: Show) -> None:
    from jgen.data.sources import open_source
    from jgen.train import pictures

    check_at_least(1, num=command.num)
    config = DataConfig(
        command.name, resolution=command.resolution, channels=command.channels, split=command.split,
        skip_bad=command.skip_bad, root=command.root,
    )  # fmt: skip
    source = open_source(config)
    examples = [source[i] for i in range(min(command.num, len(source)))]
    path = Path(command.out or f"{command.name.split(':')[-1].strip('/').replace('/', '-')}.png")
    pictures.save(pictures.grid(np.stack([e["image"] for e in examples])), path)
    size = "endless" if source.endless else f"{len(source):,} images"
    print(f"{command.name} {command.split}: {size} of {'x'.join(map(str, source.shape))}, {len(source.classes)} classes")
    if source.classes:
        names = source.classes[:20]
        print(f"classes: {', '.join(names)}{' ...' if len(source.classes) > 20 else ''}")
    for key, value in examples[0].items():
        print(f"  {key}: {np.asarray(value).dtype} {np.shape(value)}")
    print(f"contact sheet: {path}")


def make(command: Prepare) -> None:
    from jgen.data.tfds_sets import prepare

    folder = prepare(command.name, command.root, command.resolution, command.channels, command.skip_bad)
    print(f"prepared: {folder}\nopen it as: tfds.data_source({folder.parent.name!r}, data_dir={str(folder.parent.parent)!r})")


if __name__ == "__main__":
    main()
