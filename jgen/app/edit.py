"""The commands invert, edit, mix and generate: pictures of yours, or of a text, in the space of styles of a run."""

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jgen import pictures
from jgen.app.load import Run, load
from jgen.app.text_edit import generated, text_editor
from jgen.config import MeshConfig
from jgen.config.inversion import ByText, Edit, Generate, Inversion, Mix
from jgen.data import index_order, open_source
from jgen.data.images import read_image
from jgen.edit.directions import move, project_out
from jgen.errors import UserError
from jgen.metrics.extract import open_extractor
from jgen.metrics.image_quality import psnr
from jgen.recipes.inversion.invert import Editor, Inverted
from jgen.sharding import make_mesh

NO_TEXT = ByText()


def opened(folder: Path, given: Inversion, mesh: MeshConfig) -> tuple[Run, Editor, np.ndarray]:
    """The run, its editor, and the pictures [B, H, W, C] in [-1, 1], fitted to its size.

    Raises UserError for a run without styles and for no picture, or one that can't be read.
    """
    if not given.image:
        raise UserError("image: name at least one picture, --image PHOTO.png")
    run, editor = with_styles(folder, mesh)
    return run, editor, np.stack([fitted(Path(name), run.stage.data.shape) for name in given.image])


def with_styles(folder: Path, mesh: MeshConfig) -> tuple[Run, Editor]:
    """A run and its editor. Raises UserError for a run without styles."""
    run = load(folder, make_mesh(mesh))
    if run.stage.space is None:
        raise UserError(f"run={folder}: {run.stage.name} has no styles; must be of a StyleGAN or experiments.inversion")
    extra = run.stage.extra_for(run.extra, run.stage.options, run.mesh)
    return run, Editor(run.params, extra, run.stage.space, open_extractor("", run.stage.data.name))


def fitted(path: Path, shape: tuple[int, ...], option: str = "image") -> np.ndarray:
    """A picture file [H, W, C] in [-1, 1]; says so where its size is another, and it was resized and cropped to its middle."""
    height, width, channels = shape
    if not path.is_file():
        raise UserError(f"{option}={path}: no such file")
    own = read_image(path).shape
    if own[:2] != (height, width):
        print(f"{path}: {own[0]}x{own[1]}, resized to {height}x{width}{'' if own[0] == own[1] else ', its middle'}")
    return read_image(path, channels, size=(height, width)).astype(np.float32) / np.float32(127.5) - 1


def inverted(editor: Editor, images: np.ndarray, given: Inversion) -> tuple[Inverted, jax.Array]:
    """The pictures' styles and inversions; prints how near they are and how long they took."""
    began = time.monotonic()
    found = editor.invert(jnp.asarray(images), given)
    made = jax.block_until_ready(editor.pictures(found, found.ws))
    seconds = (time.monotonic() - began) / len(images)
    for name, decibels in zip(given.image, np.asarray(psnr(made, jnp.asarray(images)))):
        print(f"{name}: {decibels:.1f} dB PSNR, {seconds:.1f} s a picture, compilation included")
    return found, made


def write(rows: Sequence[np.ndarray | jax.Array], out: str, folder: Path, name: str) -> None:
    """A sheet with a row for each picture, of these columns [B, H, W, C]; a grid of one column."""
    path = Path(out) if out else folder / f"{name}.png"
    if path.suffix != ".png":
        raise UserError(f"out={path}: must be a .png")
    sheet = np.stack([np.asarray(column) for column in rows], 1)
    pictures.save(pictures.grid(sheet.reshape(-1, *sheet.shape[2:]), columns=len(rows) if len(rows) > 1 else 0), path)
    print(f"written: {path}")


def invert(folder: Path, given: Inversion, out: str, mesh: MeshConfig) -> None:
    """Source and inversion of every picture; the styles beside them as .npy."""
    run, editor, images = opened(folder, given, mesh)
    found, made = inverted(editor, images, given)
    write([images, made], out, run.folder, "inverted")
    path = (Path(out) if out else run.folder / "inverted.png").with_suffix(".npy")
    np.save(path, np.asarray(found.ws))
    print(f"styles: {path}")


def edit(folder: Path, given: Inversion, how: Edit, out: str, mesh: MeshConfig, by_text: ByText = NO_TEXT) -> None:
    """Source, inversion, and an edit for every distance; or by a text: with its rows, then optimised by a scorer."""
    run, editor, images = opened(folder, given, mesh)
    if by_text.text:
        text = text_editor(run, editor, by_text, "after_coarse")
        found, made = inverted(editor, images, given)
        edits = text.columns(found, jnp.asarray(images))
        text.say({"source": jnp.asarray(images), "inversion": made, "edit": edits[-1]})
        write([images, made, *edits], out, run.folder, "edited")
        return
    layers, way = editor.rows(how.layers, "layers"), _direction(run, editor, how.direction)
    if how.keep:
        kept = np.stack([_direction(run, editor, name) for name in how.keep])
        way = project_out(way, kept) * np.linalg.norm(way)
    found, made = inverted(editor, images, given)
    ws = np.asarray(found.ws)
    edits = [editor.pictures(found, jnp.asarray(move(ws, way, by, layers), jnp.float32)) for by in how.by]
    write([images, made, *edits], out, run.folder, "edited")


def generate(folder: Path, given: Generate, out: str, mesh: MeshConfig, by_text: ByText = NO_TEXT) -> None:
    """Pictures made by a text, a sketch or a class; with a scorer before and after the optimisation."""
    run, editor = with_styles(folder, mesh)
    drawn = fitted(Path(given.sketch), run.stage.data.shape, "sketch") if given.sketch else None
    write(generated(run, editor, by_text, given, drawn), out, run.folder, "generated")


def mix(folder: Path, given: Inversion, how: Mix, out: str, mesh: MeshConfig) -> None:
    """Both pictures with their inversions, and each with rows of the other."""
    if len(given.image) != 2:
        raise UserError(f"image: {len(given.image)} given; must be two, --image A.png --image B.png")
    run, editor, images = opened(folder, given, mesh)
    chosen = jnp.isin(jnp.arange(editor.space.num_ws), jnp.asarray(editor.rows(how.rows, "rows")))[None, :, None]
    found, made = inverted(editor, images, given)
    mixed = editor.pictures(found, jnp.where(chosen, found.ws[::-1], found.ws))
    write([images, made, mixed], out, run.folder, "mixed")


EXAMPLES = 600
"""Pictures of the set that a direction of an attribute is learnt from."""


def _direction(run: Run, editor: Editor, name: str) -> np.ndarray:
    """A direction [D] of one step, by its name. Raises UserError for one that there is none of."""
    attribute, _, value = name.partition(":")
    if name.endswith(".npy") or attribute in ("pca", "sefa"):
        return editor.direction(name, _from_file(name))
    source = open_source(run.stage.data, run.stage.train.seed)
    examples = [source[i] for i in index_order(len(source))[:EXAMPLES]]
    known = [key for key, number in examples[0].items() if np.ndim(number) == 0]
    if attribute not in known:
        raise UserError(f"direction={name}: must be pca:N, sefa:N, a .npy file, or an attribute: {', '.join(known) or 'none'}")
    scores = np.array([int(each[attribute]) for each in examples])
    if value:
        if not value.isdecimal() or not np.any(scores == int(value)):
            raise UserError(f"direction={name}: must be from {scores.min()} to {scores.max()}, a value of {attribute}")
        scores = (scores == int(value)).astype(int)
    images = np.stack([each["image"] for each in examples])
    levels = images / np.float32(127.5) - 1 if images.dtype == np.uint8 else images
    return editor.attribute(jnp.asarray(levels), scores)


def _from_file(name: str) -> np.ndarray | None:
    """The direction in a .npy file; None for a name of another kind. Raises UserError for a file that holds none."""
    if not name.endswith(".npy"):
        return None
    try:
        return np.asarray(np.load(name, allow_pickle=False), np.float64)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"direction={name}: no .npy file of numbers ({error})") from error
