"""A GAN that works in powers of 2, with styles or without, as functions: at its whole size, or at part of it as it grows."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, LabelSampling, StyleSampling
from jgen.edit import noise as noise_kinds
from jgen.edit.space import StyleSpace
from jgen.models.gan import progan
from jgen.models.gan.moved_constant import with_moved_constant
from jgen.models.gan.stylegan2 import repeat, truncate
from jgen.objectives import stylegan
from jgen.objectives.adversarial import GAN
from jgen.objectives.stylegan import Draws, Style
from jgen.recipes.gan.images import cropped, pad
from jgen.recipes.gan.networks import Networks, OneHot
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, Params

NO_NOISE: Mapping[str, Array] = MappingProxyType({})


class Growth(NamedTuple):
    """A stage that trains a network at part of its resolution."""

    skip: int
    """How many of the finest levels are left out."""
    fade_steps: int
    """Steps in which the newest level comes in, each counted as often as gradients are accumulated; 0 for a stage without."""


@dataclass(frozen=True)
class StyleModel:
    """The players of a set, at part of their size where they grow: the form for training, and images for everything else.

    `jgen.recipes.gan.sampling` says in which state G samples.
    """

    networks: Networks
    data: DataConfig
    classes: int
    mixing: float = 0.0
    """Probability of style mixing."""
    growth: Growth | None = None

    def grown(self, extra: Extra) -> dict[str, Any]:
        """The arguments of the networks that say how far they have grown."""
        if self.growth is None:
            return {}
        if not self.growth.fade_steps:
            return {"skip": self.growth.skip}
        return {"skip": self.growth.skip, "fade": jnp.clip(1 - extra["fade_step"] / self.growth.fade_steps, 0.0, 1.0)}

    def one_hot(self, label: Array | None) -> OneHot:
        """Labels [B] as the networks take them."""
        return jax.nn.one_hot(label, self.classes) if self.classes and label is not None else None

    def style(self, extra: Extra) -> Style:
        """Mapping and synthesis, as far as they have grown."""
        now, nets = self.grown(extra), self.networks
        return Style(
            map=nets.map,
            synthesize=lambda params, ws, noise: nets.synthesize(params, ws, noise, **now),
            noise=lambda keys: noise_kinds.planes(keys, nets.noise_sides),
            z_dim=nets.z_dim,
            num_ws=nets.num_ws,
            used_ws=nets.num_ws - 2 * self.growth.skip if self.growth and nets.num_ws > 1 else nets.num_ws,
            mixing=self.mixing,
        )

    def gan(self, state: Extra) -> GAN:
        """Both players; state: further entries of extra at the start, such as an augmentation's."""
        nets = self.networks

        def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
            extra = {"w_avg": jnp.zeros(nets.w_dim), "pl_mean": jnp.zeros(()), **state}
            label = jnp.zeros((1, self.classes)) if self.classes else None
            return nets.init(key, label), extra | ({"fade_step": jnp.zeros((), jnp.int32)} if self.growth else {})

        def latents(keys: Key, condition: Condition) -> Draws:
            noise = noise_kinds.planes(keys, nets.noise_sides)
            return Draws(samplers.noise(keys, (nets.z_dim,)), None, nets.num_ws, noise)

        def train_latents(key: Key, images: Array, rows: int) -> Draws:
            begun = self.style({"fade_step": 0})  # how far the newest level has come in makes no difference to draws
            return stylegan.draw(begun, key, images, rows)

        def mapping(params: Params, extra: Extra, z: Draws, condition: Condition) -> tuple[Array, Extra]:
            label = self.one_hot(condition.label)
            ws, w_avg = stylegan.styles(self.style(extra), params["g"], z, label, extra["w_avg"])
            return ws, {"w_avg": w_avg}

        def synthesize(params: Params, extra: Extra, ws: Array, z: Draws) -> Array:
            return self.style(extra).synthesize(params["g"], ws, z.noise)

        def generate(params: Params, extra: Extra, z: Draws, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
            ws, moved = mapping(params, extra, z, condition)
            return synthesize(params, extra, ws, z), moved if train else {}

        def discriminate(
            params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
        ) -> tuple[DiscriminatorOutput, Extra]:
            parts = [x for x in (self.one_hot(condition.label), condition.augment) if x is not None]
            d_label = jnp.concatenate(parts, -1) if parts else None
            logits = nets.discriminate(params["d"], images, d_label, **self.grown(extra))
            return DiscriminatorOutput(logits), {}

        def prepare(extra: Extra, images: Array) -> Array:
            images = pad(images, nets.side)
            return images if self.growth is None else progan.faded(images, **self.grown(extra))

        return GAN(
            init=init,
            latents=latents,
            train_latents=train_latents,
            generate=generate,
            discriminate=discriminate,
            map=mapping,
            synthesize=synthesize,
            classes=self.classes,
            state_moves_in=frozenset({"g", "d"}),
            prepare=prepare,
        )

    def styles(
        self, params: Params, extra: Extra, keys: Key, options: LabelSampling | StyleSampling, z: Array | None = None
    ) -> Array:
        """ws [B, num_ws, D] of one key an image, or of given latents z [B, Z]."""
        label = self.one_hot(samplers.class_labels(keys, options.label, self.classes))
        z = samplers.noise(keys, (self.networks.z_dim,)) if z is None else z
        ws = repeat(self.networks.map(params["g"], z, label), self.networks.num_ws)
        return truncate(ws, extra["w_avg"], options.psi) if isinstance(options, StyleSampling) else ws

    def synthesized(self, params: Params, extra: Extra, ws: Array, planes: dict[str, Array]) -> Array:
        """Images of the set's size, in [-1, 1]."""
        images = self.networks.synthesize(params["g"], ws, planes, **self.grown(extra))
        images = images if self.growth is None else progan.enlarge(images, self.networks.side)
        return jnp.clip(cropped(images, self.data.shape[0]), -1, 1)

    def sample(self, params: Params, extra: Extra, keys: Key, options: LabelSampling | StyleSampling) -> Array:
        """The stage's sampler."""
        planes = self.planes(keys, options)
        return self.synthesized(params, extra, self.styles(params, extra, keys, options), planes)

    def planes(self, keys: Key, options: LabelSampling | StyleSampling) -> dict[str, Array]:
        """The noise inputs, of the kind that the options say; none where there are no styles."""
        if not isinstance(options, StyleSampling) or options.noise == "none":
            return {}
        return noise_kinds.planes(keys, self.networks.noise_sides, getattr(noise_kinds, options.noise))

    def moved(self, params: Params, extra: Extra, keys: Key, options: StyleSampling, transform: Array) -> Array:
        """Images whose constant is moved; noise inputs stay in place. See `jgen.models.gan.moved_constant`."""
        ws = self.styles(params, extra, keys, options)
        planes = self.planes(keys, options)
        images = self.networks.synthesize(with_moved_constant(params["g"], transform), ws, planes, **self.grown(extra))
        return images if self.growth is None else progan.enlarge(images, self.networks.side)

    def space(self) -> StyleSpace:
        """The styles, for inversion and editing."""

        def synthesize(params: Params, extra: Extra, ws: Array, noise: Mapping[str, Array] = NO_NOISE) -> Array:
            images = self.networks.synthesize(params["g"], ws, dict(noise), **self.grown(extra))
            images = images if self.growth is None else progan.enlarge(images, self.networks.side)
            return cropped(images, self.data.shape[0])

        def styles(params: Params, extra: Extra, keys: Key, label: int = -1, z: Array | None = None) -> Array:
            return self.styles(params, extra, keys, LabelSampling(label), z)

        nets, state = self.networks, ("w_avg", "fade_step") if self.growth else ("w_avg",)
        mean = lambda extra, label=-1: extra["w_avg"]  # noqa: E731
        return StyleSpace(nets.num_ws, nets.w_dim, styles, synthesize, mean, nets.z_dim, nets.noise_sides, state)

    def from_w(self, params: Params, extra: Extra, w: Array, keys: Key) -> Array:
        """Images of w [B, D], with a key an image for the noise."""
        planes = noise_kinds.planes(keys, self.networks.noise_sides)
        return self.synthesized(params, extra, repeat(w, self.networks.num_ws), planes)
