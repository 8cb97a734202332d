"""The commands of `python -m jgen.data`."""

from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from jgen import pictures
from jgen.app.data_command import List, Prepare, Show
from jgen.config import DataConfig
from jgen.data import Source, emoji, open_source
from jgen.data.idx import fashion_mnist_folder
from jgen.data.source import Example, good_example
from jgen.data.sources import check_split
from jgen.data.tfds_sets import data_dir, known_sets, prepare, prepared_sets
from jgen.errors import UserError
from jgen.files import check_out

LARGEST_SHOWN = 256
"""Pixels a side of an image on a contact sheet."""


def show_list(command: List) -> None:
    table = Table(title="sets", title_justify="left")
    for column in ("name", "what", "ready"):
        table.add_column(column)
    table.add_row("digits", "1,797 handwritten digits, 8x8 grey (default)", "yes, comes with scikit-learn")
    table.add_row("stacked_digits", "three of them as colours: 1,000 modes to find, 8x8", "yes, made of digits")
    table.add_row("glyphs", "characters in any font, colour, place: endless, 8 to 256 pixels", "yes, made as needed")
    ready = fashion_mnist_folder()
    table.add_row("fashion_mnist", "70,000 clothes, 28x28 grey", "yes" if ready else "apt-get install dataset-fashion-mnist")
    for name in emoji.NAMES:
        get = "apt-get install fonts-noto-color-emoji" if name == "emoji:noto" else "prepare emoji"
        table.add_row(name, "real pictures in colour with captions and attributes", "yes" if emoji.ready(name) else get)
    table.add_row("idx:FOLDER", "IDX files named as MNIST's", "")
    table.add_row("folder:FOLDER", "PNG, JPEG and WebP files, a class a subfolder", "")
    for name in prepared_sets(command.root):
        table.add_row(name, "prepared TFDS set", f"yes, in {data_dir(command.root)}")
    table.add_row("any TFDS name", f"{len(known_sets()):,} sets, such as cifar10, celeb_a, imagenet2012", "prepare NAME")
    Console().print(table)


def show(command: Show) -> None:
    config = DataConfig(
        command.name, resolution=command.resolution, channels=command.channels, split=command.split,
        skip_bad=command.skip_bad, root=command.root,
    )  # fmt: skip
    check_split(config)
    path = Path(command.out or f"{command.name.split(':')[-1].strip('/').replace('/', '-') or 'set'}.png")
    check_out(path, (".png",))
    source = open_source(config)
    count = min(command.num, len(source))
    places = range(count) if source.endless else np.linspace(0, len(source) - 1, count).astype(int).tolist()
    examples = [_example(source, i) for i in places]
    pictures.save(pictures.grid(np.stack([e["image"] for e in examples])), path)
    size = "endless" if source.endless else f"{len(source):,} images"
    print(f"{command.name} {command.split}: {size} of {'x'.join(map(str, source.shape))}, {len(source.classes)} classes")
    if source.classes:
        names = source.classes[:20]
        print(f"classes: {', '.join(names)}{' ...' if len(source.classes) > 20 else ''}")
    for key, value in examples[0].items():
        print(f"  {key}: {np.asarray(value).dtype} {source.shape if key == 'image' else np.shape(value)}")
    print(f"contact sheet: {path}")


def _example(source: Source, index: int) -> Example:
    """An example, or of a source that skips bad files the next good one; its image small, so that many fit in memory."""
    example, _ = good_example(source, index)
    return {**example, "image": _small(example["image"])}


def _small(image: np.ndarray) -> np.ndarray:
    """An image of at most LARGEST_SHOWN pixels a side, so that a sheet of large ones is no file of hundreds of MB."""
    if max(image.shape) <= LARGEST_SHOWN:
        return image
    picture = Image.fromarray(image.squeeze(-1) if image.shape[2] == 1 else image)
    picture.thumbnail((LARGEST_SHOWN, LARGEST_SHOWN))
    return np.asarray(picture).reshape(picture.height, picture.width, image.shape[2])


def make(command: Prepare) -> None:
    if not command.name.startswith("folder:"):
        for option in ("resolution", "channels", "skip_bad"):
            if (value := getattr(command, option)) != getattr(Prepare(""), option):
                raise UserError(f"{option}={value}: has no effect on {command.name}, which is not resized; leave it out")
    if command.name == "emoji":
        print(f"prepared: {emoji.prepare(command.root)}")
        return
    folder = prepare(command.name, command.root, command.resolution, command.channels, command.skip_bad)
    print(f"prepared: {folder}\nopen it as: tfds.data_source({folder.parent.name!r}, data_dir={str(folder.parent.parent)!r})")
