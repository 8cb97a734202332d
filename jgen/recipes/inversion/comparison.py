"""The evaluation of an encoder's run: every way of inversion on held-out pictures, and how edits move attributes.

A method has its PSNR, the distance of features (as LPIPS has it, by the set's own network), and seconds a picture without
compilation. Edits are those of `attributes`, of the encoder's inversions: editability, in which e4e is to be better than pSp
(Tov et al. 2021).
"""

from collections.abc import Iterator
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np

from jgen.config import DataConfig
from jgen.config.inversion import Inversion, Method
from jgen.edit.space import StyleSpace
from jgen.metrics.extract import open_extractor
from jgen.metrics.image_quality import psnr
from jgen.recipes.inversion.attributes import directions_measured, examples_of
from jgen.recipes.inversion.invert import Editor
from jgen.train.stage import Evaluate
from jgen.types import Batch, Extra, Key, Params

METHODS = tuple(name for name in get_args(Method) if name)
COMPARED, EDITED = 8, 64
"""Held-out pictures that every method inverts, and those whose encoder's inversions are edited."""
BY = 2.0
"""How far edits go, in deviations."""


def comparison(space: StyleSpace, data: DataConfig, seed: int) -> Evaluate:
    """The evaluation, of the first held-out pictures; seed: of the run."""

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        editor = Editor(params, extra, space, open_extractor("", data.name))
        images, result = jnp.concatenate([next(batches)["image"] for _ in range(count)])[:EDITED], {}
        for method in METHODS:
            found = editor.invert(images[:COMPARED], Inversion(method=method))
            made = editor.pictures(found, found.ws)
            distance = jnp.mean(jnp.sum(jnp.square(editor.seen(made) - editor.seen(images[:COMPARED])), -1))
            result[f"{method}: psnr_db"] = float(jnp.mean(psnr(made, images[:COMPARED])))
            result[f"{method}: distance"] = float(distance)
            result[f"{method}: seconds a picture"] = found.seconds
        edited = editor.invert(images, Inversion(method="encoder"))
        shares = directions_measured(editor, examples_of(data, seed), edited, BY)
        return {**result, **{name: float(np.round(share, 4)) for name, share in shares.items()}}

    return evaluate
