"""Pictures brought into a run's space of styles: by optimisation, by its encoder, by both, and with a tuned generator."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jgen.config.inversion import Inversion
from jgen.edit.directions import chosen_layers
from jgen.edit.in_domain import InDomainOptions, in_domain_inversion
from jgen.edit.noise import planes
from jgen.edit.projector import ProjectorOptions, project, style_statistics
from jgen.edit.pti import PivotalOptions, pivotal_tuning
from jgen.edit.space import StyleSpace
from jgen.edit.styles import ranges
from jgen.edit.timing import timed
from jgen.errors import UserError
from jgen.metrics.perceptual import Perceptual
from jgen.types import Array, Extra, Params, PyTree

SAMPLES = 2000
"""Styles whose mean and spread are taken."""


class Inverted(NamedTuple):
    """Pictures' styles, and a generator for each where it was tuned."""

    ws: Array
    """[B, num_ws, D]."""
    tuned: tuple[Params, ...] = ()
    noise: Mapping[str, Array] = MappingProxyType({})
    """{layer: [B, side, side, 1]} where noise inputs were sought too."""
    seconds: float = 0.0
    """The time that a picture took, without compilation."""


@dataclass(frozen=True)
class Editor:
    """A run's generator, its space, and the network that says how unlike two pictures are."""

    params: Params
    extra: Extra
    space: StyleSpace
    perceptual: Perceptual

    @cached_property
    def sampled(self) -> Callable[..., Array]:
        """One key a style, and a class or -1 -> random styles [N, D]."""
        draw = lambda keys, label: self.space.styles(self.params, self.extra, keys, label)[:, 0]  # noqa: E731
        return jax.jit(draw, static_argnums=1)

    @cached_property
    def samples(self) -> Array:
        """Styles [SAMPLES, D]."""
        return self.samples_of(-1)

    def samples_of(self, label: int) -> Array:
        """Styles [SAMPLES, D] of a class; -1 draws one for each. Raises UserError for a class that there is none of."""
        try:
            return self.sampled(jax.random.split(jax.random.key(0), SAMPLES), label)
        except UserError as error:
            raise UserError(f"from_class={str(error).removeprefix('label=')}") from error

    def timed(self, function: Callable[..., Any], *arrays: Any) -> tuple[Any, float]:
        """(function(editor, *arrays), seconds), as one program whose weights are arguments and no constants."""

        def run(params: Params, extra: Extra, *arrays: Any) -> Any:
            return function(replace(self, params=params, extra=extra), *arrays)

        return timed(run, self.params, self.extra, *arrays)

    @cached_property
    def _show(self) -> Callable[..., Array]:
        return jax.jit(lambda params, extra, ws, noise: jnp.clip(self.space.synthesize(params, extra, ws, noise), -1, 1))

    def show(self, ws: Array, params: Params | None = None, noise: Mapping[str, Array] = MappingProxyType({})) -> Array:
        """Images of ws [B, num_ws, D], of the run's size in [-1, 1]."""
        return self._show(params or self.params, self.extra, ws, dict(noise))

    def pictures(self, found: Inverted, ws: Array) -> Array:
        """Images of ws, each with its picture's own noise inputs, and by its own generator where it was tuned."""
        if not found.tuned:
            return self.show(ws, noise=found.noise)
        return jnp.concatenate([self.show(w[None], params) for w, params in zip(ws, found.tuned)])

    def features(self, images: Array) -> Array:
        """[B, F]: all pixels and what is seen of them; the distance of two images is their squared difference."""
        return _with_pixels(images, self.perceptual.see(images))

    def seen(self, images: Array) -> Array:
        """[B, F]: what is seen of images, so long that the distance is the mean of squared differences."""
        seen = self.perceptual.see(images)
        return seen * seen.shape[-1] ** 0.5

    def shown(self, images: Array) -> Array:
        """[B, F]: all pixels and a few features of the whole, for a judge of what images show."""
        return _with_pixels(images, self.perceptual.pooled(self.perceptual.weights, images))

    def distance(self, a: Array, b: Array) -> Array:
        """[B]: how unlike two images look."""
        return jnp.sum(jnp.square(self.perceptual.see(a) - self.perceptual.see(b)), -1)

    def synthesize(self, ws: Array) -> Array:
        """Unclipped images, for gradients."""
        return self.space.synthesize(self.params, self.extra, ws)

    def encode(self, images: Array) -> Array:
        """The encoder's ws. Raises UserError for a run without one."""
        if self.space.encode is None:
            raise UserError("method: this run has no encoder; must be z, w, w_plus or pti, or a run of experiments.inversion")
        return self.space.encode(self.params, self.extra, images)

    def invert(self, images: Array, options: Inversion) -> Inverted:
        """The styles of images [B, H, W, C] by the method of the options."""
        method = options.method or ("encoder" if self.space.encode else "w_plus")
        if method == "pti":
            return self.tuned_all(images, options)
        if method in ("z", "w", "w_plus"):
            return self.projected(images, options, method, options.noise_maps)
        if method == "encoder":
            ws, seconds = self.timed(Editor.encode, images)
        else:
            how = InDomainOptions(options.inversion_steps, feature_weight=0.25, encoder_weight=options.domain_weight)
            ws, seconds = self.timed(
                lambda own, images: in_domain_inversion(own.synthesize, own.encode, own.seen, images, how)[0], images
            )
        return Inverted(ws, seconds=seconds / len(images))

    def projected(self, images: Array, options: Inversion, method: str, noise_maps: bool) -> Inverted:
        """Styles by StyleGAN2's projector: one for all rows, one for each, or that of a latent.

        It begins from the mean style, and in Z from the latent of a sample whose style is nearest to it. noise_maps: the noise
        inputs of a generator that has them are sought too.
        """
        keys, how = jax.random.split(jax.random.key(1), len(images)), ProjectorOptions(num_steps=options.inversion_steps)
        mean, std = style_statistics(self.samples_of(options.from_class))
        rows = self.space.num_ws if method == "w_plus" else 1
        start = jnp.tile(mean, (rows, 1))
        if method == "z":
            z = jax.random.normal(jax.random.key(3), (SAMPLES, self.space.z_dim))
            styles = jax.jit(lambda z: self.of_latents(z, options.from_class)[:, 0])(z)
            start, std = z[jnp.argmin(jnp.sum(jnp.square(styles - mean), -1))][None], jnp.float32(self.space.z_dim**0.5)
        noise = planes(keys, dict(self.space.noise_sides)) if noise_maps else {}

        def styles_of(own: Editor, codes: Array) -> Array:
            return own.of_latents(codes[:, 0], options.from_class) if method == "z" else codes

        def run(own: Editor, images: Array, start: Array, std: Array, noise: dict[str, Array]) -> tuple[Array, Any]:
            def synthesis(codes: Array, noise: Mapping[str, Array]) -> Array:
                return own.space.synthesize(own.params, own.extra, styles_of(own, codes), noise)

            count = 1 if method == "z" else own.space.num_ws
            codes, maps, _ = project(synthesis, own.features, images, start, std, noise, keys, count, how)
            return styles_of(own, codes), maps

        (ws, maps), seconds = self.timed(run, images, start, std, noise)
        return Inverted(ws, noise=maps, seconds=seconds / len(images))

    def of_latents(self, z: Array, label: int) -> Array:
        """ws [B, num_ws, D] of latents [B, z_dim] and a class; -1 draws one for each."""
        return self.space.styles(self.params, self.extra, jax.random.split(jax.random.key(4), len(z)), label, z)

    def tuned_all(self, images: Array, options: Inversion) -> Inverted:
        """Pivots by the encoder, or in W where there is none, and a generator tuned to each picture."""
        if self.space.encode:
            pivots = self.invert(images, replace(options, method="encoder"))
        else:
            pivots = self.projected(images, options, "w", False)

        def all_of(own: Editor, images: Array, ws: Array) -> PyTree:
            return jax.lax.map(lambda pair: own.tuned(pair[0], pair[1], options), (images, ws))

        stacked, seconds = self.timed(all_of, images, pivots.ws)
        tuned = tuple({**self.params, "g": jax.tree.map(lambda x, i=i: x[i], stacked)} for i in range(len(images)))
        return Inverted(pivots.ws, tuned, seconds=pivots.seconds + seconds / len(images))

    def tuned(self, image: Array, pivot: Array, options: Inversion) -> PyTree:
        """The weights of the generator, tuned to an image [H, W, C] by squared and perceptual distance.

        The locality term holds images of random styles, half-way to the mean, as the authors' does.
        """
        weight = options.locality_weight
        how = PivotalOptions(
            options.tuning_rate, options.tuning_steps, threshold=0.0, locality=bool(weight), locality_l2_weight=weight,
            locality_perceptual_weight=weight,
        )  # fmt: skip

        def synthesize(params: PyTree, ws: Array) -> Array:
            return self.space.synthesize({**self.params, "g": params}, self.extra, ws)

        def distance(a: Array, b: Array) -> Array:
            return jnp.sum(self.distance(a, b))

        def styles(key: Array) -> Array:
            ws, mean = self.space.styles(self.params, self.extra, key[None]), self.space.mean(self.extra)
            return mean[None, None] + 0.5 * (ws - mean[None, None])

        key, original = jax.random.key(2), self.params["g"]
        return pivotal_tuning(synthesize, synthesize, distance, styles, original, image, pivot, key, how)[0]

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


def _with_pixels(images: Array, seen: Array) -> Array:
    pixels = images.reshape(len(images), -1)
    return jnp.concatenate([pixels / pixels.shape[1] ** 0.5, 0.5 * seen], -1)


def in_batches(function: Callable[[Array], Array], images: np.ndarray | Array) -> np.ndarray:
    """The outputs of a function for images, which it is given a hundred at a time."""
    run = jax.jit(function)
    return np.concatenate([np.asarray(run(jnp.asarray(images[i : i + 100]))) for i in range(0, len(images), 100)])
