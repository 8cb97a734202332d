"""The evaluation of an encoder's run: every way of inversion on held-out pictures, and how edits move attributes.

A method has its PSNR, the perceptual distance (`jgen.metrics.perceptual`), and seconds a picture without compilation. Edits are
those of `attributes`, of the encoder's inversions: editability, in which e4e is to be better than pSp (Tov et al. 2021).
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np

from jgen.config import DataConfig
from jgen.config.inversion import Inversion, Method
from jgen.data import emoji
from jgen.edit.space import StyleSpace
from jgen.edit.styles import ranges
from jgen.errors import UserError
from jgen.metrics.image_quality import psnr
from jgen.metrics.perceptual import open_perceptual
from jgen.recipes.inversion.attributes import Examples, directions_measured, examples_of, text_edits_measured
from jgen.recipes.inversion.invert import Editor
from jgen.train.stage import Evaluate
from jgen.types import Batch, Extra, Key, Params

METHODS = tuple(name for name in get_args(Method) if name)
COMPARED, EDITED = 8, 64
"""Held-out pictures that every method inverts, and those whose encoder's inversions are edited."""
BY = 2.0
"""How far edits go, in deviations."""


def comparison(space: StyleSpace, data: DataConfig, seed: int, extractor: str = "") -> Evaluate:
    """The evaluation, of the first held-out pictures; seed: of the run. extractor: as `open_perceptual` takes it."""

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        editor = Editor(params, extra, space, open_perceptual(extractor, data.name))
        images, result = jnp.concatenate([next(batches)["image"] for _ in range(count)])[:EDITED], {}
        for method in METHODS:
            found = editor.invert(images[:COMPARED], Inversion(method=method))
            made = editor.pictures(found, found.ws)
            result[f"{method}: psnr_db"] = float(jnp.mean(psnr(made, images[:COMPARED])))
            result[f"{method}: distance"] = float(jnp.mean(editor.distance(made, images[:COMPARED])))
            result[f"{method}: seconds a picture"] = found.seconds
        edited = editor.invert(images, Inversion(method="encoder"))
        examples = examples_of(data, seed)
        shares = directions_measured(editor, examples, edited, BY)
        if space.describe is not None:
            after_coarse = range(ranges(space.num_ws)["middle"][0], space.num_ws)
            shares |= text_edits_measured(editor, examples, _held_out(data, seed), after_coarse)
        return {**result, **{name: float(np.round(share, 4)) for name, share in shares.items()}}

    return evaluate


def _held_out(data: DataConfig, seed: int) -> Examples:
    """Examples that were not trained on: of emoji, variants of things that were; of a set without such a split, the trained."""
    split = "seen" if data.name in emoji.NAMES else "test"
    try:
        return examples_of(replace(data, split=split, limit=0), seed, EDITED)
    except UserError:
        return examples_of(data, seed, EDITED)
