"""Pictures brought into a run's space of styles: by optimisation, by its encoder, by both, and with a tuned generator."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config.inversion import Inversion
from jgen.edit.directions import boundary, chosen_layers, extremes, principal_components, sefa
from jgen.edit.in_domain import InDomainOptions, in_domain_inversion
from jgen.edit.projector import ProjectorOptions, project, style_statistics
from jgen.edit.pti import PivotalOptions, pivotal_tuning
from jgen.edit.space import StyleSpace
from jgen.edit.styles import ranges
from jgen.edit.timing import timed
from jgen.errors import UserError
from jgen.metrics.extract import Extractor
from jgen.types import Array, Extra, Params, PyTree

SAMPLES = 2000
"""Styles whose mean, spread and components are taken."""


class Inverted(NamedTuple):
    """Pictures' styles, and a generator for each where it was tuned."""

    ws: Array
    """[B, num_ws, D]."""
    tuned: tuple[Params, ...] = ()
    seconds: float = 0.0
    """The time that a picture took, without compilation."""


@dataclass(frozen=True)
class Editor:
    """A run's generator, its space, and the network that says how unlike two pictures are."""

    params: Params
    extra: Extra
    space: StyleSpace
    extractor: Extractor

    @cached_property
    def samples(self) -> Array:
        """Styles [SAMPLES, D]."""
        draw = jax.jit(lambda keys: self.space.styles(self.params, self.extra, keys)[:, 0])
        return draw(jax.random.split(jax.random.key(0), SAMPLES))

    def timed(self, function: Callable[..., Any], *arrays: Any) -> tuple[Any, float]:
        """(function(editor, *arrays), seconds), as one program whose weights are arguments and no constants."""

        def run(params: Params, extra: Extra, *arrays: Any) -> Any:
            return function(replace(self, params=params, extra=extra), *arrays)

        return timed(run, self.params, self.extra, *arrays)

    @cached_property
    def _show(self) -> Callable[[Params, Extra, Array], Array]:
        return jax.jit(lambda params, extra, ws: jnp.clip(self.space.synthesize(params, extra, ws), -1, 1))

    def show(self, ws: Array, params: Params | None = None) -> Array:
        """Images of ws [B, num_ws, D], of the run's size in [-1, 1]."""
        return self._show(params or self.params, self.extra, ws)

    def pictures(self, found: Inverted, ws: Array) -> Array:
        """Images of ws, each by its picture's own generator where it was tuned."""
        if not found.tuned:
            return self.show(ws)
        return jnp.concatenate([self.show(w[None], params) for w, params in zip(ws, found.tuned)])

    def features(self, images: Array) -> Array:
        """[B, F]: all pixels and, normalised, features; the distance of two images is their squared difference."""
        pixels = images.reshape(len(images), -1)
        return jnp.concatenate([pixels / pixels.shape[1] ** 0.5, 0.5 * self.seen(images)], -1)

    def seen(self, images: Array) -> Array:
        """[B, F]: what the extractor sees of images, of length 1."""
        seen = self.extractor.apply(self.extractor.variables, (images + 1) * 127.5)[0]
        return seen / (jnp.linalg.norm(seen, axis=-1, keepdims=True) + 1e-10)

    def perceptual(self, images: Array) -> Array:
        """[B, F]: `seen`, so long that the mean of squared differences is the distance, not its share of one feature."""
        seen = self.seen(images)
        return seen * seen.shape[-1] ** 0.5

    def synthesize(self, ws: Array) -> Array:
        """Unclipped images, for gradients."""
        return self.space.synthesize(self.params, self.extra, ws)

    def encode(self, images: Array) -> Array:
        """The encoder's ws. Raises UserError for a run without one."""
        if self.space.encode is None:
            raise UserError("method: this run has no encoder; must be w, w_plus or pti, or a run of experiments.inversion")
        return self.space.encode(self.params, self.extra, images)

    def invert(self, images: Array, options: Inversion) -> Inverted:
        """The styles of images [B, H, W, C] by the method of the options."""
        method = options.method or ("encoder" if self.space.encode else "w_plus")
        if method == "pti":
            return self.tuned_all(images, options)
        if method == "encoder":
            ws, seconds = self.timed(Editor.encode, images)
        elif method == "encoder_plus":
            how = InDomainOptions(options.inversion_steps, feature_weight=0.25, encoder_weight=options.domain_weight)
            ws, seconds = self.timed(
                lambda own, images: in_domain_inversion(own.synthesize, own.encode, own.perceptual, images, how)[0], images
            )
        else:
            rows, statistics = self.space.num_ws if method == "w_plus" else 1, style_statistics(self.samples)
            ws, seconds = self.timed(
                lambda own, images, mean, std: own.projected(images, mean, std, options.inversion_steps, rows),
                images, *statistics,
            )  # fmt: skip
        return Inverted(ws, seconds=seconds / len(images))

    def tuned_all(self, images: Array, options: Inversion) -> Inverted:
        """Pivots by the encoder, or in W where there is none, and a generator tuned to each picture."""
        pivots = self.invert(images, replace(options, method="encoder" if self.space.encode else "w"))

        def all_of(own: Editor, images: Array, ws: Array) -> PyTree:
            return jax.lax.map(lambda pair: own.tuned(pair[0], pair[1], options), (images, ws))

        stacked, seconds = self.timed(all_of, images, pivots.ws)
        tuned = tuple({**self.params, "g": jax.tree.map(lambda x, i=i: x[i], stacked)} for i in range(len(images)))
        return Inverted(pivots.ws, tuned, pivots.seconds + seconds / len(images))

    def projected(self, images: Array, mean: Array, std: Array, steps: int, rows: int) -> Array:
        """ws by StyleGAN2's projector, from the mean style [1, D] and the styles' spread."""
        found = project(
            lambda ws, noise: self.synthesize(ws), self.features, images, jnp.tile(mean, (rows, 1)), std, {},
            jax.random.split(jax.random.key(1), len(images)), self.space.num_ws, ProjectorOptions(num_steps=steps),
        )  # fmt: skip
        return found[0]

    def tuned(self, image: Array, pivot: Array, options: Inversion) -> PyTree:
        """The weights of the generator, tuned to an image [H, W, C]."""
        how = PivotalOptions(options.tuning_rate, options.inversion_steps, threshold=0.0)

        def synthesize(params: PyTree, ws: Array) -> Array:
            return self.space.synthesize({**self.params, "g": params}, self.extra, ws)

        def distance(a: Array, b: Array) -> Array:
            return jnp.sum(jnp.square(self.features(a) - self.features(b)))

        key, styles = jax.random.key(2), lambda key: pivot[None]  # without a locality term no style is drawn
        return pivotal_tuning(synthesize, synthesize, distance, styles, self.params["g"], image, pivot, key, how)[0]

    def rows(self, text: str, option: str) -> list[int]:
        """Rows by name (coarse, middle, fine) or number. Raises UserError for rows that do not exist."""
        named = ranges(self.space.num_ws) if text in ("coarse", "middle", "fine") else {}
        try:
            return list(range(*named[text])) if text in named else chosen_layers(text, self.space.num_ws)
        except UserError as error:
            raise UserError(f"{option}={text}: must be coarse, middle, fine, or from 0 to {self.space.num_ws - 1}") from error

    def codes_of(self, images: np.ndarray) -> np.ndarray:
        """[N, D]: the mean of the encoder's rows for images, in batches."""
        return in_batches(lambda images: jnp.mean(self.encode(images), 1), images)

    def attribute(self, codes: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """InterFaceGAN's direction [D] to higher scores [N] of codes [N, D], one deviation long.

        Of the scores the highest and lowest 30 % teach; of scores 0 and 1 at most as many of one as of the other.
        """
        share = min(0.3, float(np.mean(scores > 0)), float(np.mean(scores <= 0))) if len(set(scores)) == 2 else 0.3
        ends = extremes(scores, share, 1.0)
        normal = boundary(codes[ends.train], ends.train_label).normal
        return normal * np.std(codes @ normal)

    def direction(
        self, name: str, given: np.ndarray | None = None, rows: Sequence[int] | None = None, option: str = "direction"
    ) -> np.ndarray:
        """A step of size 1 [D] along pca:N or sefa:N; or `given`, read from the file so named. Raises UserError for others.

        rows: those that are moved, whose layers SeFa factorises; all unless given. option: that names it, for errors.
        """
        if given is not None:
            if given.shape != (self.space.w_dim,):
                raise UserError(f"{option}={name}: of shape {given.shape}; this run's styles have {self.space.w_dim} numbers")
            return given
        kind, _, number = name.partition(":")
        if kind not in ("pca", "sefa") or not number.isdecimal() or int(number) >= self.space.w_dim:
            raise UserError(
                f"{option}={name}: must be pca:N or sefa:N, N below {self.space.w_dim}, an attribute, or a .npy file"
            )
        if kind == "sefa":
            matrices = style_matrices(self.params["g"], self.space.w_dim)
            chosen = [matrix for row, matrix in matrices.items() if rows is None or row in rows]
            return sefa(chosen or list(matrices.values()))[0][int(number)]  # the last row may be of an image alone
        found = principal_components(np.asarray(self.samples), int(number) + 1)
        return found.components[-1] * found.stdev[-1]


def in_batches(function: Callable[[Array], Array], images: np.ndarray | Array) -> np.ndarray:
    """The outputs of a function for images, which it is given a hundred at a time."""
    run = jax.jit(function)
    return np.concatenate([np.asarray(run(jnp.asarray(images[i : i + 100]))) for i in range(0, len(images), 100)])


def style_matrices(params: PyTree, w_dim: int) -> dict[int, np.ndarray]:
    """{row of ws: the matrix [channels, D] that its layer makes its styles with}, without layers to RGB.

    The first row of StyleGAN3 is that of its input, whose place and angle are no style.
    """
    paths = {
        "/".join(getattr(entry, "key", "") for entry in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    }

    def order(path: str) -> list[str | int]:
        """By the numbers in the names of layers, so that 8 comes before 16."""
        return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", path)]

    kept = {path: leaf.T for path, leaf in paths.items() if re.search(r"/(affine|style)/kernel$", path) and len(leaf) == w_dim}
    first = any("input/affine" in path for path in kept)
    layers = [path for path in sorted(kept, key=order) if "torgb" not in path and "input/affine" not in path]
    return {first + i: kept[path] for i, path in enumerate(layers) if kept[path].ndim == 2}
