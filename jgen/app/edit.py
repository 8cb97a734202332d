"""The commands invert, edit, mix and generate of StyleGANs: pictures of yours, or of a text, by way of styles."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.load import Run, load
from jgen.app.photos import check_sheet, fitted, fitted_all, say_quality, write, write_array
from jgen.app.picture_commands import check_method
from jgen.app.text_edit import generated, text_editor
from jgen.config import MeshConfig
from jgen.config.inversion import ByText, Edit, Generate, Inversion, Mix
from jgen.edit.directions import move, project_out
from jgen.errors import UserError
from jgen.metrics.perceptual import open_perceptual
from jgen.progress import waiting
from jgen.recipes.inversion.attributes import Judge, examples_of
from jgen.recipes.inversion.invert import Editor, Inverted
from jgen.recipes.inversion.run_directions import attribute_direction, direction
from jgen.sharding import make_mesh
from jgen.untrusted import read_npy

NO_TEXT = ByText()


def opened(folder: Path, given: Inversion, out: str, mesh: MeshConfig, array: bool = False) -> tuple[Run, Editor, np.ndarray]:
    """The run, its editor, and the pictures [B, H, W, C] in [-1, 1], fitted to its size.

    Raises UserError for a run without styles, for options that the method does not read, and for no picture, or one that
    can't be read.
    """
    check_sheet(out, given.image, array)
    run, editor = with_styles(folder, mesh, given.extractor)
    encoder = editor.space.encode is not None
    check_method(given, given.method or ("encoder" if encoder else "w_plus"), encoder, bool(editor.space.noise_sides))
    return run, editor, fitted_all(given.image, run.stage.data)


def with_styles(folder: Path, mesh: MeshConfig, extractor: str = "") -> tuple[Run, Editor]:
    """A run and its editor. Raises UserError for a run without styles, and as `open_perceptual` does."""
    run = load(folder, make_mesh(mesh))
    if run.stage.space is None:
        raise UserError(f"run={folder}: {run.stage.name} has no styles; must be of a StyleGAN or experiments.inversion")
    extra = run.stage.extra_for(run.extra, run.stage.options, run.mesh)
    return run, Editor(run.params, extra, run.stage.space, open_perceptual(extractor, run.stage.data.name))


def inverted(editor: Editor, images: np.ndarray, given: Inversion) -> tuple[Inverted, jax.Array]:
    """The pictures' styles and inversions; prints how near they are and how long they took."""
    with waiting(f"inverting {len(images)} pictures"):
        found = editor.invert(jnp.asarray(images), given)
        made = editor.pictures(found, found.ws)
    say_quality(given.image, made, images, found.seconds)
    return found, made


def invert(folder: Path, given: Inversion, out: str, mesh: MeshConfig) -> None:
    """Source and inversion of every picture; the styles beside them as .npy."""
    run, editor, images = opened(folder, given, out, mesh, array=True)
    found, made = inverted(editor, images, given)
    write_array(found.ws, write([images, made], out, run.folder, "inverted"), "styles")


def edit(folder: Path, given: Inversion, how: Edit, out: str, mesh: MeshConfig, by_text: ByText = NO_TEXT) -> None:
    """Source, inversion, and an edit for every distance; or by a text: with its rows, then optimised by a scorer."""
    run, editor, images = opened(folder, given, out, mesh)
    if by_text.text:
        text = text_editor(run, editor, by_text, "after_coarse")
        found, made = inverted(editor, images, replace(given, noise_maps=False))  # by which the text's optimisation goes
        edits = text.columns(found, jnp.asarray(images))
        text.say({"source": jnp.asarray(images), "inversion": made, "edit": edits[-1]})
        write([images, made, *edits], out, run.folder, "edited")
        return
    layers = editor.rows(how.layers, "layers")
    way = _direction(run, editor, how.direction, layers)
    if how.keep:
        kept = np.stack([_direction(run, editor, name, layers, "keep") for name in how.keep])
        try:
            way = project_out(way, kept) * np.linalg.norm(way)
        except UserError as error:
            named = f"keep={' '.join(how.keep)}"
            raise UserError(f"{named}: nothing is left of direction={how.direction} without them") from error
    found, made = inverted(editor, images, given)
    ws = np.asarray(found.ws)
    edits = [editor.pictures(found, jnp.asarray(move(ws, way, by, layers), jnp.float32)) for by in how.by]
    if how.measure:
        _say_changes(run, editor, made, dict(zip(how.by, edits)))
    write([images, made, *edits], out, run.folder, "edited")


def _say_changes(run: Run, editor: Editor, before: jax.Array, edits: dict[float, jax.Array]) -> None:
    """Prints in how many pictures each edit, by its distance, changed each attribute that a judge knows."""
    judge = Judge.fit(editor.shown, examples_of(run.stage.data, run.stage.train.seed))
    if not judge.classifiers:
        print(f"measure: {run.stage.data.name} has no attribute of two values and more that a judge could learn")
        return
    rights = ", ".join(f"{name} {share:.0%}" for name, share in judge.accuracy.items())
    print(f"judge of examples that it did not learn from: right in {rights}")
    shown = judge.values(before)
    for by, images in edits.items():
        now = judge.values(images)
        changed = ", ".join(f"{name} in {np.sum(now[name] != shown[name])}" for name in shown)
        print(f"by {by:g}: of {len(before)} pictures changed {changed}")


def generate(folder: Path, given: Generate, out: str, mesh: MeshConfig, by_text: ByText = NO_TEXT) -> None:
    """Pictures made by a text, a sketch or a class; with a scorer before and after the optimisation."""
    check_sheet(out, (given.sketch,))
    run, editor = with_styles(folder, mesh)
    drawn = fitted(Path(given.sketch), run.stage.data, "sketch") if given.sketch else None
    write(generated(run, editor, by_text, given, drawn), out, run.folder, "generated")


def mix(folder: Path, given: Inversion, how: Mix, out: str, mesh: MeshConfig) -> None:
    """Both pictures with their inversions, and each with rows of the other."""
    if len(given.image) != 2:
        raise UserError(f"image: {len(given.image)} given; must be two, --image A.png --image B.png")
    run, editor, images = opened(folder, given, out, mesh)
    chosen = jnp.isin(jnp.arange(editor.space.num_ws), jnp.asarray(editor.rows(how.rows, "rows")))[None, :, None]
    found, made = inverted(editor, images, given)
    mixed = editor.pictures(found, jnp.where(chosen, found.ws[::-1], found.ws))
    write([images, made, mixed], out, run.folder, "mixed")


def _direction(run: Run, editor: Editor, name: str, layers: list[int], option: str = "direction") -> np.ndarray:
    """A direction [D] of one step, by its name; option: that names it. Raises UserError for one that there is none of."""
    attribute, _, value = name.partition(":")
    if name.endswith(".npy") or attribute in ("pca", "sefa"):
        return direction(editor, name, _from_file(name, option), layers, option)
    examples = examples_of(run.stage.data, run.stage.train.seed)
    known = list(examples.attributes)
    if attribute not in known:
        raise UserError(f"{option}={name}: must be pca:N, sefa:N, a .npy file, or an attribute: {', '.join(known) or 'none'}")
    if editor.space.encode is None:
        raise UserError(f"{option}={name}: an attribute needs a run with an encoder (experiments.inversion); pca:N needs none")
    scores, stated = examples.attributes[attribute], examples.stated(attribute)
    if value:
        if not value.isdecimal() or not np.any(scores == int(value)):
            raise UserError(f"{option}={name}: must be from {scores.min():g} to {scores.max():g}, a value of {attribute}")
        # One of the scale is compared with the others of it, and "no tone" with all.
        stated = stated if np.any(stated & (scores == int(value))) else np.ones_like(stated)
        scores = (scores == int(value)).astype(int)
    if len(set(scores[stated])) < 2:
        raise UserError(f"{option}={name}: all {stated.sum()} examples of {run.stage.data.name} show the same {attribute}")
    return attribute_direction(editor.codes_of(examples.images[stated]), scores[stated])


def _from_file(name: str, option: str) -> np.ndarray | None:
    """The direction in a .npy file; None for a name of another kind. Raises UserError for a file that holds none."""
    if not name.endswith(".npy"):
        return None
    try:
        found = read_npy(Path(name)).astype(np.float64)
    except (OSError, ValueError, EOFError, TypeError) as error:  # UserError is a ValueError
        raise UserError(f"{option}={name}: no .npy file of numbers ({error})") from error
    if not np.isfinite(found).all() or not found.any():
        raise UserError(f"{option}={name}: must hold finite numbers, not all of them zero")
    return found
