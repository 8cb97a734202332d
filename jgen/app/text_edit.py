"""Pictures edited and made by a text: TediGAN's two commands, edit --text and generate."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.load import Run
from jgen.app.scorer import open_scorer
from jgen.app.words import known_text
from jgen.config.inversion import ByText, Generate
from jgen.data import index_order, open_source
from jgen.data.captions import encoded
from jgen.data.images import scaled
from jgen.edit.in_domain import InDomainOptions
from jgen.edit.styles import ranges
from jgen.edit.text_guided import Score, controlled, redescribed, text_guided
from jgen.errors import UserError
from jgen.recipes.inversion.invert import Editor, Inverted
from jgen.samplers import image_keys
from jgen.types import Array

SHOWN = 64
"""Images of a class whose mean style is taken."""


@dataclass(frozen=True)
class TextEditor:
    """An editor of a run, and how a text moves styles: by the run's text encoder, by a scorer, or by both."""

    editor: Editor
    how: ByText
    rows: Array
    """bool [num_ws]: those that follow the text."""
    described: Array | None
    """ws [1, num_ws, D] of the text, where the run has a text encoder."""
    before: Array | None
    """ws [1, num_ws, D] of the text that says what the picture shows, where one does."""
    score: Score | None

    def mixed(self, ws: Array) -> Array:
        """Codes with the text's rows, or moved by what it changes; as they are where there is no text encoder."""
        if self.described is None:
            return ws
        if self.before is not None:
            return redescribed(ws, self.before, self.described, self.rows)
        return controlled(ws, self.described, self.rows)

    def optimised(self, ws: Array, targets: Array | None) -> Array:
        """Codes that are moved to a better score; with targets, whose pixels are kept, or only within the encoder's domain."""
        assert self.score is not None
        space, how = self.editor.space, self.how
        kept_weight = 0.0 if targets is None else how.text_pixel_weight
        options = InDomainOptions(
            how.text_steps, how.text_rate, pixel_weight=kept_weight, feature_weight=0.25 * kept_weight,
            encoder_weight=2.0 if space.encode else 0.0, text_weight=how.text_score_weight,
        )  # fmt: skip
        kept = self.editor.show(ws) if targets is None else targets
        return text_guided(
            self.editor.synthesize, self.editor.encode if space.encode else None, self.editor.seen, kept, ws, self.rows,
            self.score, options,
        )[0]  # fmt: skip

    def optimised_by_own(self, found: Inverted, ws: Array, targets: Array) -> Array:
        """`optimised`, each picture by its own generator where it was tuned."""
        if not found.tuned:
            return self.optimised(ws, targets)
        own = [replace(self, editor=replace(self.editor, params=params)) for params in found.tuned]
        return jnp.concatenate([each.optimised(ws[i : i + 1], targets[i : i + 1]) for i, each in enumerate(own)])

    def columns(self, found: Inverted, images: Array) -> list[Array]:
        """Pictures [B, H, W, C] of each step that there is: with the text's rows, and after the optimisation."""
        ws, made = self.mixed(found.ws), []
        if self.described is not None:
            made.append(self.editor.pictures(found, ws))
        if self.score is not None:
            made.append(self.editor.pictures(found, self.optimised_by_own(found, ws, images)))
        return made

    def say(self, named: dict[str, Array]) -> None:
        """Prints how well pictures fit the text, where there is a scorer."""
        if self.score is not None:
            scores = {name: float(jnp.mean(self.score(images))) for name, images in named.items()}
            print("fit of the text: " + ", ".join(f"{name} {value:.3f}" for name, value in scores.items()))


def text_editor(run: Run, editor: Editor, how: ByText, default_rows: str) -> TextEditor:
    """The editor of a text.

    Raises UserError for rows that do not exist, a text without a known word, and where nothing can follow a text.
    """
    space = editor.space
    default = "all" if how.from_text else default_rows
    chosen = editor.rows(_default(how.text_rows, default, space.num_ws), "text_rows")
    if space.describe is None and how.from_text:
        raise UserError(f"from_text={how.from_text}: this run has no text encoder; experiments.inversion --text trains one")
    if space.describe is None and not how.scorer:
        raise UserError(
            f"text={how.text}: this run has no text encoder (experiments.inversion --text trains one); name a --scorer RUN of "
            "experiments.image_text"
        )
    described, before = (
        _described(run, editor, text, name) for name, text in (("text", how.text), ("from_text", how.from_text))
    )
    score = open_scorer(how.scorer, how.text, how.vocabulary) if how.scorer else None
    return TextEditor(editor, how, jnp.isin(jnp.arange(space.num_ws), jnp.asarray(chosen)), described, before, score)


def _described(run: Run, editor: Editor, text: str, option: str) -> Array | None:
    """ws [1, num_ws, D] of a text; None for none, and for a run without a text encoder."""
    space, data = editor.space, run.stage.data
    if not text or space.describe is None:
        return None
    known = known_text(text, data, run.stage.train.seed, option)
    return space.describe(editor.params, editor.extra, jnp.asarray(encoded(known, data, option))[None])


def _default(rows: str, default: str, num_ws: int) -> str:
    """The rows as they are named; else all, or those after the coarse ones."""
    if rows or default == "all":
        return rows or "all"
    return f"{ranges(num_ws)['middle'][0]}-{num_ws - 1}"


def generated(run: Run, editor: Editor, how: ByText, given: Generate, drawn: np.ndarray | None) -> list[Array]:
    """Columns of pictures made by a text, and by a sketch or a class: at first, and after the optimisation by a scorer.

    drawn: the sketch [H, W, C] in [-1, 1]. Raises UserError for nothing to make, and for what the run can't follow.
    """
    if not how.text and given.label < 0 and drawn is None:
        raise UserError('text: say what to make, such as --text "a red A on blue", --sketch FILE.png or --label 3')
    mean = editor.space.mean(editor.extra)[None, None]
    random = editor.space.styles(editor.params, editor.extra, image_keys(given.seed, given.num))
    base = _base(run, editor, given, drawn, mean)
    ws, offset = jnp.broadcast_to(base, random.shape), given.variety * (random - mean)
    if not how.text:
        return [editor.show(ws + offset)]
    text = text_editor(run, editor, how, "all" if drawn is None else "after_coarse")
    ws = text.mixed(ws) + offset
    columns = [editor.show(ws)]
    if text.score is not None:
        columns.append(editor.show(text.optimised(ws, None)))
        text.say({"before": columns[0], "optimised": columns[1]})
    return columns


def _base(run: Run, editor: Editor, given: Generate, drawn: np.ndarray | None, mean: Array) -> Array:
    """The style [1, num_ws, D] to begin from: a sketch's, a class's, or the mean."""
    if drawn is not None:
        if given.label >= 0:
            raise UserError("sketch, label: both say where to begin; name one of them")
        if editor.space.from_sketch is None:
            raise UserError(
                f"sketch={given.sketch}: this run has no encoder of sketches; experiments.inversion --sees sketches"
            )
        return editor.space.from_sketch(editor.params, editor.extra, jnp.asarray(drawn)[None])
    return _of_class(run, editor, given.label) if given.label >= 0 else mean


def _of_class(run: Run, editor: Editor, label: int) -> Array:
    """The mean style [1, num_ws, D] of a class's images. Raises UserError for a class that there is none of."""
    data = run.stage.data
    if not data.num_classes:
        raise UserError(f"label={label}: {data.name} has no classes")
    if not 0 <= label < data.num_classes:
        raise UserError(f"label={label}: must be from 0 to {data.num_classes - 1}, a class of {data.name}")
    if editor.space.encode is None:
        raise UserError(f"label={label}: this run has no encoder, whose styles of a class are taken; see experiments.inversion")
    source, images = open_source(data, run.stage.train.seed), []
    for i in index_order(len(source)):
        example = source[i]
        if int(example["label"]) == label:
            images.append(np.asarray(example["image"]))
        if len(images) == SHOWN:
            break
    if not images:
        raise UserError(f"label={label}: no image of this class was found in {data.name}")
    return jnp.mean(jax.jit(editor.encode)(jnp.asarray(scaled(np.stack(images)))), 0, keepdims=True)
