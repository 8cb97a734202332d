"""StyleGAN3 as functions: the form for training, whose averages move in D's updates alone, and images for everything else.

G_ema of the authors copies buffers and averages weights; here `Stage.ema` averages weights, and extra["g"] holds the buffers
(frequencies, phases, averages of magnitudes) of the last step beside extra["w_avg"].
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, GANConfig, StyleConfig, StyleSampling
from jgen.config.alias_free import AliasFreeConfig
from jgen.edit.space import StyleSpace
from jgen.errors import UserError
from jgen.models.gan import stylegan2, stylegan3
from jgen.models.gan.alias_free_layers import Design, alias_free_layers
from jgen.models.gan.stylegan2 import repeat, truncate
from jgen.objectives import stylegan
from jgen.objectives.adversarial import GAN
from jgen.objectives.stylegan import Draws
from jgen.recipes.gan.images import cropped, pad, shape_of
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, Params, PyTree


def alias_free_generator(gan: GANConfig, style: StyleConfig, own: AliasFreeConfig, data: DataConfig) -> stylegan3.Generator:
    """The generator of the images' side, or the next power of 2. Config r has twice the channels and 1x1 kernels."""
    side, channels, classes = shape_of(data, gan.conditional)
    wide = 2 if own.config == "r" else 1
    design = Design(1 if own.config == "r" else 3, use_radial_filters=own.config == "r", margin_size=own.margin)
    layers = alias_free_layers(
        side, channels, channel_base=wide * gan.channel_base, channel_max=wide * gan.channel_max, num_layers=own.layers,
        num_critical=own.critical, design=design,
    )  # fmt: skip
    beta = 0.5 ** (data.batch_size / 20_000)
    return stylegan3.Generator(
        layers, gan.z_dim, classes, style.w_dim, style.mapping_layers, style.mapping_lr_mul, beta=beta
    )  # fmt: skip


@dataclass(frozen=True)
class AliasFreeModel:
    """The players of a set. `jgen.recipes.gan.sampling` says in which state G samples."""

    g: stylegan3.Generator
    d: stylegan2.Discriminator
    data: DataConfig
    mixing: float = 0.0
    """Probability of style mixing; the authors have none."""

    def one_hot(self, label: Array | None) -> Array | None:
        """Labels [B] as the networks take them."""
        return jax.nn.one_hot(label, self.g.c_dim) if self.g.c_dim and label is not None else None

    def map(self, params: PyTree, z: Array, label: Array | None) -> Array:
        """w [B, w_dim] of G's weights."""
        return self.g.apply({"params": params}, z, label, method="map")  # pyright: ignore[reportReturnType]

    def synthesize(self, params: Params, extra: Extra, ws: Array, transform: Array | None = None) -> Array:
        """G's images of ws; nothing moves. transform: [3, 3], see `stylegan3.Input`."""
        variables = {"params": params["g"], "buffers": extra["g"]}
        return self.g.apply(variables, ws, transform, method="synthesize")  # pyright: ignore[reportReturnType]

    def style(self) -> stylegan.Style:
        """Mapping and mixing, of `jgen.objectives.stylegan`."""
        return stylegan.Style(
            self.map, lambda params, ws, noise: ws, lambda keys: {}, self.g.z_dim, self.g.num_ws, mixing=self.mixing,
            w_decay=0.998,
        )  # fmt: skip

    def gan(self, state: Extra) -> GAN:
        """Both players; state: further entries of extra at the start."""
        g, d = self.g, self.d

        def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
            keys, label = jax.random.split(key), jnp.zeros((1, g.c_dim)) if g.c_dim else None
            made = g.init(keys[0], jnp.zeros((1, g.z_dim)), label)
            image = jnp.zeros((1, g.resolution, g.resolution, g.image_channels))
            params = {"g": made["params"], "d": d.init(keys[1], image, label)["params"]}
            return params, {"w_avg": jnp.zeros(g.w_dim), "pl_mean": jnp.zeros(()), "g": made["buffers"], **state}

        def mapping(params: Params, extra: Extra, z: Draws, condition: Condition) -> tuple[Array, Extra]:
            ws, w_avg = stylegan.styles(self.style(), params["g"], z, self.one_hot(condition.label), extra["w_avg"])
            return ws, {"w_avg": w_avg}

        def generate(params: Params, extra: Extra, z: Draws, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
            ws, moved = mapping(params, extra, z, condition)
            if not train:
                return self.synthesize(params, extra, ws), {}
            variables = {"params": params["g"], "buffers": extra["g"]}
            images, new = g.apply(variables, ws, update=True, method="synthesize", mutable=["buffers"])
            return images, {**moved, "g": new["buffers"]}

        def discriminate(
            params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
        ) -> tuple[DiscriminatorOutput, Extra]:
            logits = d.apply({"params": params["d"]}, images, self.one_hot(condition.label))
            return DiscriminatorOutput(logits), {}  # pyright: ignore[reportArgumentType]

        return GAN(
            init=init,
            latents=lambda keys, condition: Draws(samplers.noise(keys, (g.z_dim,)), None, g.num_ws, {}),
            train_latents=lambda key, images, rows: stylegan.draw(self.style(), key, images, rows),
            generate=generate,
            discriminate=discriminate,
            map=mapping,
            synthesize=lambda params, extra, ws, z: self.synthesize(params, extra, ws),
            classes=g.c_dim,
            state_moves_in=frozenset({"d"}),
            prepare=lambda extra, images: pad(images, g.resolution),
        )

    def styles(self, params: Params, extra: Extra, keys: Key, options: StyleSampling, z: Array | None = None) -> Array:
        """ws [B, num_ws, D] of one key an image, or of given latents z [B, Z], truncated."""
        label = self.one_hot(samplers.class_labels(keys, options.label, self.g.c_dim))
        z = samplers.noise(keys, (self.g.z_dim,)) if z is None else z
        return truncate(repeat(self.map(params["g"], z, label), self.g.num_ws), extra["w_avg"], options.psi)

    def images(self, params: Params, extra: Extra, ws: Array, transform: Array | None = None) -> Array:
        """Images of the set's size, in [-1, 1]."""
        made = self.synthesize(params, extra, ws, transform)
        return jnp.clip(cropped(made, self.data.shape[0]), -1, 1)

    def moved(self, params: Params, extra: Extra, keys: Key, options: StyleSampling, transform: Array) -> Array:
        """Images whose input is moved, as the network makes them."""
        return self.synthesize(params, extra, self.styles(params, extra, keys, options), transform)

    def space(self) -> StyleSpace:
        """The styles, for inversion and editing."""
        return StyleSpace(
            self.g.num_ws, self.g.w_dim,
            lambda params, extra, keys, label=-1, z=None: self.styles(params, extra, keys, StyleSampling(label), z),
            lambda params, extra, ws, noise=None: cropped(self.synthesize(params, extra, ws), self.data.shape[0]),
            lambda extra, label=-1: extra["w_avg"], self.g.z_dim, {}, ("w_avg", "g"),
        )  # fmt: skip

    def sample(self, params: Params, extra: Extra, keys: Key, options: StyleSampling) -> Array:
        """The stage's sampler. Raises UserError for a kind of noise, since the network has no noise inputs."""
        if options.noise != "gaussian":
            raise UserError(f"noise={options.noise}: has no effect, since this network has no noise inputs; leave it out")
        return self.images(params, extra, self.styles(params, extra, keys, options))


def still(form: GAN) -> GAN:
    """The form of a style-based GAN as G's updates take it: averages are read, and do not move."""

    def generate(params: Params, extra: Extra, z: Draws, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        return form.generate(params, extra, z, condition, train=False)

    def mapping(params: Params, extra: Extra, z: Draws, condition: Condition) -> tuple[Array, Extra]:
        assert form.map is not None
        return form.map(params, extra, z, condition)[0], {}

    return form._replace(generate=generate, map=mapping)
