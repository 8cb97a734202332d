"""Pictures brought into a run's space of styles: by optimisation, by its encoder, by both, and with a tuned generator."""

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

    def show(self, ws: Array, params: Params | None = None) -> Array:
        """Images of ws [B, num_ws, D], of the run's size in [-1, 1]."""
        run = jax.jit(lambda params, ws: jnp.clip(self.space.synthesize(params, self.extra, ws), -1, 1))
        return run(params or self.params, ws)

    def pictures(self, found: Inverted, ws: Array) -> Array:
        """Images of ws, each by its picture's own generator where it was tuned."""
        if not found.tuned:
            return self.show(ws)
        return jnp.concatenate([self.show(w[None], params) for w, params in zip(ws, found.tuned)])

    def features(self, images: Array) -> Array:
        """[B, F]: all pixels and, normalised, features; the distance of two images is their squared difference."""
        seen = self.extractor.apply(self.extractor.variables, (images + 1) * 127.5)[0]
        seen = seen / (jnp.linalg.norm(seen, axis=-1, keepdims=True) + 1e-10)
        pixels = images.reshape(len(images), -1)
        return jnp.concatenate([pixels / pixels.shape[1] ** 0.5, 0.5 * seen], -1)

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
        if method in ("w", "w_plus"):
            return Inverted(self.projected(images, options.inversion_steps, self.space.num_ws if method == "w_plus" else 1))
        if method == "encoder":
            return Inverted(jax.jit(self.encode)(images))
        if method == "encoder_plus":
            how = InDomainOptions(options.inversion_steps, learning_rate=0.01, feature_weight=1.0)
            return Inverted(in_domain_inversion(self.synthesize, self.encode, self.features, images, how)[0])
        pivots = self.invert(images, replace(options, method="encoder" if self.space.encode else "w")).ws
        return Inverted(pivots, tuple(self.tuned(*each, options) for each in zip(images, pivots)))

    def projected(self, images: Array, steps: int, rows: int) -> Array:
        """ws by StyleGAN2's projector."""
        mean, std = style_statistics(self.samples)
        found = project(
            lambda ws, noise: self.synthesize(ws), self.features, images, jnp.tile(mean, (rows, 1)), std, {},
            jax.random.split(jax.random.key(1), len(images)), self.space.num_ws, ProjectorOptions(num_steps=steps),
        )  # fmt: skip
        return found[0]

    def tuned(self, image: Array, pivot: Array, options: Inversion) -> Params:
        """The players, with a generator that was tuned to an image [H, W, C]."""
        how = PivotalOptions(options.tuning_rate, options.inversion_steps, threshold=0.0)

        def synthesize(params: PyTree, ws: Array) -> Array:
            return self.space.synthesize({**self.params, "g": params}, self.extra, ws)

        def distance(a: Array, b: Array) -> Array:
            return jnp.sum(jnp.square(self.features(a) - self.features(b)))

        key, styles = jax.random.key(2), lambda key: pivot[None]  # without a locality term no style is drawn
        found = pivotal_tuning(synthesize, synthesize, distance, styles, self.params["g"], image, pivot, key, how)
        return {**self.params, "g": found[0]}

    def rows(self, text: str, option: str) -> list[int]:
        """Rows by name (coarse, middle, fine) or number. Raises UserError for rows that do not exist."""
        named = ranges(self.space.num_ws) if text in ("coarse", "middle", "fine") else {}
        try:
            return list(range(*named[text])) if text in named else chosen_layers(text, self.space.num_ws)
        except UserError as error:
            raise UserError(f"{option}={text}: must be coarse, middle, fine, or from 0 to {self.space.num_ws - 1}") from error

    def attribute(self, images: Array, scores: np.ndarray) -> np.ndarray:
        """InterFaceGAN's direction [D] to higher scores [N] of images, one deviation long; from the encoder's codes.

        Of the scores the highest and lowest 30 % teach; of scores 0 and 1 at most as many of one as of the other.
        """
        run = jax.jit(lambda images: jnp.mean(self.encode(images), 1))
        codes = np.concatenate([np.asarray(run(images[i : i + 100])) for i in range(0, len(images), 100)])
        share = min(0.3, float(np.mean(scores > 0)), float(np.mean(scores <= 0))) if len(set(scores)) == 2 else 0.3
        ends = extremes(scores, share, 1.0)
        normal = boundary(codes[ends.train], ends.train_label).normal
        return normal * np.std(codes @ normal)

    def direction(self, name: str, given: np.ndarray | None = None) -> np.ndarray:
        """A step of size 1 [D] along pca:N or sefa:N; or `given`, read from the file so named. Raises UserError for others."""
        if given is not None:
            if given.shape != (self.space.w_dim,):
                raise UserError(f"direction={name}: of shape {given.shape}; this run's styles have {self.space.w_dim} numbers")
            return given
        kind, _, number = name.partition(":")
        if kind not in ("pca", "sefa") or not number.isdecimal() or int(number) >= self.space.w_dim:
            raise UserError(
                f"direction={name}: must be pca:N or sefa:N, N below {self.space.w_dim}, an attribute, or a .npy file"
            )
        if kind == "sefa":
            return sefa(style_matrices(self.params["g"], self.space.w_dim))[0][int(number)]
        found = principal_components(np.asarray(self.samples), int(number) + 1)
        return found.components[-1] * found.stdev[-1]


def style_matrices(params: PyTree, w_dim: int) -> list[np.ndarray]:
    """The matrices [channels, D] that a StyleGAN's layers make their styles with, but those to RGB."""

    def stands_there(path: Any) -> bool:
        names = [getattr(entry, "key", "") for entry in path]
        return names[-1] == "kernel" and names[-2] in ("affine", "style") and "torgb" not in names

    leaves = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if stands_there(path)]
    return [np.asarray(leaf).T for leaf in leaves if leaf.ndim == 2 and leaf.shape[0] == w_dim]
