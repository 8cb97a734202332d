"""Attributes of a set's images: directions of styles that move them, and how well an edit moves one and keeps the others.

A linear judge of features, fitted to examples of the set, says what an image shows. InterFaceGAN's measure (Shen et al. 2020,
arXiv:2005.09635, section 4.1), with exact attributes in place of networks that guess them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

from jgen.config import DataConfig
from jgen.data import index_order, open_source
from jgen.data.images import scaled
from jgen.edit.directions import move
from jgen.recipes.inversion.invert import Editor, Inverted, in_batches
from jgen.types import Array

EXAMPLES = 600
"""Images of the set that a direction and a judge are learnt from."""
MOST_VALUES = 12
"""Attributes of more values are not measured."""


class Examples(NamedTuple):
    """Images of a set and what they show."""

    images: np.ndarray
    """[N, H, W, C] in [-1, 1]."""
    attributes: Mapping[str, np.ndarray]
    """{name: numbers [N]}."""


def examples_of(data: DataConfig, seed: int, count: int = EXAMPLES) -> Examples:
    """Images of a set, in an order of its own, with their attributes: all that is one number an image."""
    source = open_source(data, seed)
    found: list[Any] = [source[i] for i in index_order(len(source))[:count]]
    names = [name for name, number in found[0].items() if np.ndim(number) == 0]
    images = scaled(np.stack([each["image"] for each in found]))
    return Examples(images, {name: np.array([float(each[name]) for each in found]) for name in names})


@dataclass(frozen=True)
class Judge:
    """Says what images show, by linear classifiers of features."""

    editor: Editor
    classifiers: Mapping[str, LogisticRegression]

    @classmethod
    def fit(cls, editor: Editor, examples: Examples) -> "Judge":
        """A classifier for each attribute of 2 to `MOST_VALUES` values."""
        seen, few = in_batches(editor.features, examples.images), {}
        for name, values in examples.attributes.items():
            if 2 <= len(set(values)) <= MOST_VALUES and (values == values.round()).all():
                few[name] = LogisticRegression(max_iter=1000).fit(seen, values.astype(int))
        return cls(editor, few)

    def probabilities(self, images: Array) -> dict[str, np.ndarray]:
        """{attribute: [N, values]}."""
        seen = in_batches(self.editor.features, images)
        return {name: judge.predict_proba(seen) for name, judge in self.classifiers.items()}


class Moved(NamedTuple):
    """Effects of an edit, as shares of pictures; nan where there is nothing to count."""

    moved: float
    """Share of those that did not show the value before and are nearer to it now, by the judge's probability."""
    reached: float
    """Share of them that show it now."""
    kept: float
    """Share of all pictures that show what they did, in the mean over the other attributes."""


def measure(judge: Judge, before: Array, after: Array, name: str, place: int) -> Moved:
    """How an edit changed images [N, H, W, C]; place: the place of the wanted value among the attribute's."""
    old, new = judge.probabilities(before), judge.probabilities(after)
    other = old[name].argmax(1) != place
    kept = [np.mean(old[key].argmax(1) == new[key].argmax(1)) for key in old if key != name]
    if not other.any():
        return Moved(np.nan, np.nan, float(np.mean(kept)) if kept else np.nan)
    rise, seen = new[name][:, place] > old[name][:, place], new[name].argmax(1) == place
    return Moved(float(rise[other].mean()), float(seen[other].mean()), float(np.mean(kept)) if kept else np.nan)


def directions_measured(editor: Editor, examples: Examples, found: Inverted, by: float) -> dict[str, float]:
    """{measure: share} of edits of inverted pictures, by InterFaceGAN's direction to each attribute's most frequent value.

    by: how far, in deviations of the codes along it.
    """
    judge, before, result = Judge.fit(editor, examples), editor.pictures(found, found.ws), {}
    rows, codes = range(editor.space.num_ws), editor.codes_of(examples.images)
    for name, classifier in judge.classifiers.items():
        values, counts = np.unique(examples.attributes[name], return_counts=True)
        place, value = int(counts.argmax()), int(values[counts.argmax()])
        way = editor.attribute(codes, (examples.attributes[name] == value).astype(int))
        after = editor.pictures(found, jnp.asarray(move(np.asarray(found.ws), way, by, rows), jnp.float32))
        assert classifier.classes_[place] == value
        shares = measure(judge, before, after, name, place)._asdict()
        result |= {f"{name}:{value} {what}": share for what, share in shares.items() if not np.isnan(share)}
    return result
