"""Attributes of a set's images: directions of styles that move them, and how well an edit moves one and keeps the others.

A linear judge of features, fitted to examples of the set, says what an image shows. InterFaceGAN's measure (Shen et al. 2020,
arXiv:2005.09635, section 4.1), with exact attributes in place of networks that guess them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.linear_model import LogisticRegression

from jgen.config import DataConfig
from jgen.data import emoji, index_order, open_source
from jgen.data.images import scaled
from jgen.edit.directions import move
from jgen.edit.text_guided import controlled, redescribed
from jgen.recipes.inversion.invert import Editor, Inverted, in_batches
from jgen.recipes.inversion.run_directions import attribute_direction
from jgen.types import Array

EXAMPLES = 600
"""Images of the set that a direction and a judge are learnt from."""
MOST_VALUES, LEAST_IMAGES = 40, 5
"""Attributes of more values are not measured; a value of fewer examples is none that the judge knows."""
C = 100.0
"""Weight of the examples' loss beside that of small weights. Of 1, 10, 100 and 1,000 it is right most often about pictures of
emoji:portraits that it did not learn from: tones of skin 81 %, genders 88 %, roles 100 %."""
HELD_BACK = 4
"""One example in so many says how often the judge is right; then it learns from them all."""


class Examples(NamedTuple):
    """Images of a set and what they show."""

    images: np.ndarray
    """[N, H, W, C] in [-1, 1]."""
    attributes: Mapping[str, np.ndarray]
    """{name: numbers [N]}."""
    unstated: Mapping[str, tuple[int, ...]]
    """{name: values that are no place on its scale}: "no tone" among tones of skin."""
    captions: np.ndarray | None = None
    """[N, ...], as a text encoder of the set reads them."""
    combined: tuple[str, ...] = ()
    """Attributes that others decide, which an edit of one of those can't keep: they are not judged."""

    def stated(self, name: str) -> np.ndarray:
        """bool [N]: whose attribute has a value on its scale."""
        return ~np.isin(self.attributes[name], self.unstated.get(name, ()))


def examples_of(data: DataConfig, seed: int, count: int = EXAMPLES) -> Examples:
    """Images of a set, in an order of its own, with their attributes: all that is one number an image."""
    source = open_source(data, seed)
    found: list[Any] = [source[i] for i in index_order(len(source))[:count]]
    names = [name for name, number in found[0].items() if np.ndim(number) == 0]
    images = scaled(np.stack([each["image"] for each in found]))
    attributes = {name: np.array([float(each[name]) for each in found]) for name in names}
    captions = np.stack([each["caption"] for each in found]) if "caption" in found[0] else None
    if data.name in emoji.NAMES:
        return Examples(images, attributes, emoji.UNSTATED, captions, emoji.COMBINED)
    return Examples(images, attributes, {}, captions)


@dataclass(frozen=True)
class Judge:
    """Says what images show, by linear classifiers of features."""

    see: Callable[[Array], Array]
    """Images [B, H, W, C] in [-1, 1] -> features [B, F]."""
    classifiers: Mapping[str, LogisticRegression]
    accuracy: Mapping[str, float]
    """{attribute: how often it is right about images that it did not learn from}."""

    @classmethod
    def fit(cls, see: Callable[[Array], Array], examples: Examples) -> "Judge":
        """A classifier for each attribute of 2 to `MOST_VALUES` whole values, of each of which there are examples enough."""
        seen, few, right = in_batches(see, examples.images), {}, {}
        for name, values in examples.attributes.items():
            known, counts = np.unique(values, return_counts=True)
            usable = np.isin(values, known[counts >= LEAST_IMAGES])
            few_values = 2 <= np.sum(counts >= LEAST_IMAGES) <= len(known) <= MOST_VALUES
            if name in examples.combined or not few_values or (values != values.round()).any():
                continue
            x, y = seen[usable], values[usable].astype(int)
            back = np.arange(len(y)) % HELD_BACK == 0
            if len(set(y[~back])) > 1:
                right[name] = float(LogisticRegression(C=C, max_iter=2000).fit(x[~back], y[~back]).score(x[back], y[back]))
            few[name] = LogisticRegression(C=C, max_iter=2000).fit(x, y)
        return cls(see, few, right)

    def probabilities(self, images: Array) -> dict[str, np.ndarray]:
        """{attribute: [N, values]}."""
        seen = in_batches(self.see, images)
        return {name: judge.predict_proba(seen) for name, judge in self.classifiers.items()}

    def values(self, images: Array) -> dict[str, np.ndarray]:
        """{attribute: the likeliest value [N]}."""
        found = self.probabilities(images)
        return {name: judge.classes_[found[name].argmax(1)] for name, judge in self.classifiers.items()}


class Moved(NamedTuple):
    """Effects of an edit, as shares of pictures; nan where there is nothing to count."""

    moved: float
    """Share of those that showed another value of the scale before and are nearer to the wanted one now, by the judge's
    probability."""
    reached: float
    """Share of them that show it now."""
    kept: Mapping[str, float]
    """{another attribute: the share of them that show the same as before}."""


def measure(judge: Judge, before: Array, after: Array, name: str, value: int, off: tuple[int, ...] = ()) -> Moved:
    """How an edit towards a value of an attribute changed images [N, H, W, C]; off: values that are no place on its scale."""
    old, new = judge.probabilities(before), judge.probabilities(after)
    classes = judge.classifiers[name].classes_
    shown = classes[old[name].argmax(1)]
    counted = ~np.isin(shown, (value, *off))
    if not counted.any():
        return Moved(np.nan, np.nan, {})
    place = int(np.flatnonzero(classes == value)[0])
    rise, seen = new[name][:, place] > old[name][:, place], new[name].argmax(1) == place
    kept = {key: float(np.mean((old[key].argmax(1) == new[key].argmax(1))[counted])) for key in old if key != name}
    return Moved(float(rise[counted].mean()), float(seen[counted].mean()), kept)


def directions_measured(editor: Editor, examples: Examples, found: Inverted, by: float) -> dict[str, float]:
    """{measure: share} of edits of inverted pictures, from the lowest to the highest value of each attribute's scale.

    By InterFaceGAN's direction, learnt from examples of these two values; by: how far, in deviations of the codes along it.
    """
    judge, before = Judge.fit(editor.shown, examples), editor.pictures(found, found.ws)
    rows, codes = range(editor.space.num_ws), editor.codes_of(examples.images)
    result = {f"judge of {name}: right": share for name, share in judge.accuracy.items()}
    for name, classifier in judge.classifiers.items():
        values, off = examples.attributes[name], examples.unstated.get(name, ())
        scale = [int(value) for value in classifier.classes_ if value not in off]
        if len(scale) < 2:
            continue
        ends = np.isin(values, (scale[0], scale[-1]))
        way = attribute_direction(codes[ends], values[ends])
        after = editor.pictures(found, jnp.asarray(move(np.asarray(found.ws), way, by, rows), jnp.float32))
        shares = measure(judge, before, after, name, scale[-1], off)
        edit = f"{name} {scale[0]} to {scale[-1]}"
        result |= {f"{edit}: moved": shares.moved, f"{edit}: reached": shares.reached}
        result |= {f"{edit}: {other} kept": share for other, share in shares.kept.items()}
    return {name: share for name, share in result.items() if not np.isnan(share)}


def text_edits_measured(editor: Editor, examples: Examples, held_out: Examples, rows: Sequence[int]) -> dict[str, float]:
    """{measure: share} of edits by a caption that asks for another value of one attribute and the picture's own of the others.

    Held-out pictures are edited as TediGAN's control mechanism does, whose `rows` are the caption's ("text"), and by what their
    own caption and the other differ by ("from_text"). The captions are those of examples; what counts is what the judge sees of
    the edit, against what the caption says ("right") and what is true of the picture ("kept"). Attributes are those that the
    judge knows.
    """
    judge, each_row = Judge.fit(editor.shown, examples), jnp.arange(editor.space.num_ws)
    names, result = list(judge.classifiers), {}
    if not names or examples.captions is None:
        return {}
    describe = jax.jit(lambda captions: editor.space.describe(editor.params, editor.extra, captions))  # pyright: ignore
    codes = jax.jit(editor.encode)(held_out.images)
    for name in names:
        pairs = _pairs(examples, held_out, name, names)
        if not len(pairs):
            continue
        wanted, content = describe(jnp.asarray(examples.captions[pairs[:, 1]])), codes[pairs[:, 0]]
        edits = {"text": controlled(content, wanted, jnp.isin(each_row, jnp.asarray(rows)))}
        if held_out.captions is not None:
            own = describe(jnp.asarray(held_out.captions[pairs[:, 0]]))
            edits["from_text"] = redescribed(content, own, wanted, jnp.ones_like(each_row, bool))
        for how, ws in edits.items():
            seen = judge.values(editor.show(ws))
            result[f"{how}, {name}: right"] = float(np.mean(seen[name] == examples.attributes[name][pairs[:, 1]]))
            for other in (other for other in names if other != name):
                kept = seen[other] == held_out.attributes[other][pairs[:, 0]]
                result[f"{how}, {name}: {other} kept"] = float(np.mean(kept))
    return result


def _pairs(examples: Examples, held_out: Examples, name: str, names: Sequence[str]) -> np.ndarray:
    """int [K, 2]: a held-out picture and the first example that differs from it in this one of the attributes, on its scale."""
    of, to = (np.stack([each.attributes[key] for key in names], 1) for each in (held_out, examples))
    place, pairs = names.index(name), []
    of_scale, to_scale = held_out.stated(name), examples.stated(name)
    for i in np.flatnonzero(of_scale):
        same = to == of[i]
        fits = np.flatnonzero(same.sum(1) == len(names) - 1 if len(names) > 1 else ~same[:, 0])
        fits = fits[~same[fits, place] & to_scale[fits]]
        if len(fits):
            pairs.append((i, fits[0]))
    return np.array(pairs, int).reshape(-1, 2)
