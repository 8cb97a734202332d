"""The arguments of the command import: a file of published weights becomes a run, which the other commands take."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jgen.app.command import commands, new_folder, option
from jgen.app.parsing import Args, parse
from jgen.config import MeshConfig
from jgen.errors import UserError

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published

Reader = Callable[[Path], "Published"]
"""A file of weights -> a run. Raises UserError for a file that is none of its experiment's."""
ABOUT = "Makes a run of a file of published weights, which sample, invert, edit, mix, serve and --train.begin-from take."
HAVE = "stylegan, stylegan2, stylegan3, stylegan_xl and inversion"
"""The experiments that have the command."""


def run(module: str, published: Reader | None, args: Args) -> None:
    """Makes a run of a file of published weights."""
    if published is None:
        raise UserError(f"import: {module} has no such command; {HAVE} have it, and jgen.convert reads others' files in Python")
    fields = [
        ("file", option(str, "The weights: of NVIDIA's .pkl, or of a port's .pt, .pth or .npz; see the page of weights."), ""),
        ("name", option(str, "Name of the run, below runs/EXPERIMENT; a path puts it elsewhere. The file's unless given."), ""),
    ]
    given: Any = parse(dataclasses.make_dataclass("Import", fields), f"{module} import", args, ABOUT)
    if not given.file:
        raise UserError("file: is needed; name the file of weights, as --file ffhq.pkl")
    path = Path(given.file)
    if not path.is_file():
        raise UserError(f"file={path}: no such file")
    folder = new_folder(module, given.name or path.stem)
    runs = commands()
    runs.start(MeshConfig(), 1)
    runs.import_weights(published(path), folder)
