"""The networks of ProGAN, StyleGAN and StyleGAN2 as functions of their weights, by their config groups."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen.config import DataConfig, GANConfig, StyleConfig
from jgen.config.gan import ArchitectureConfig, CriticConfig
from jgen.models.gan import progan, stylegan1, stylegan2
from jgen.nn.precision import in_dtype
from jgen.recipes.gan.images import shape_of
from jgen.types import Array, Key, PyTree

OneHot = Array | None
"""Classes [B, classes], or None for an unconditional network."""


class Networks(NamedTuple):
    """A generator and a discriminator as functions of their weights; grown: the arguments skip and fade of one that grows."""

    init: Callable[[Key, OneHot], dict[str, PyTree]]
    """(key, label [1, classes] or None) -> {"g", "d"}."""
    map: Callable[[PyTree, Array, OneHot], Array]
    """(params of g, z, label) -> w [B, w_dim]."""
    synthesize: Callable[..., Array]
    """(params of g, ws, noise, **grown) -> images."""
    discriminate: Callable[..., Array]
    """(params of d, images, label, **grown) -> logits [B]."""
    side: int
    """Side of the whole network's images, in pixels."""
    z_dim: int
    num_ws: int
    w_dim: int
    noise_sides: dict[str, int]
    """{noise layer: side}."""


def _apply(net: nn.Module, params: PyTree, *inputs: object, method: str | None = None, **grown: Any) -> Array:
    return net.apply({"params": params}, *inputs, method=method, **grown)  # pyright: ignore[reportReturnType]


def style_networks(
    g: stylegan1.Generator | stylegan2.Generator,
    d: stylegan1.Discriminator | stylegan2.Discriminator,
    noise_sides: dict[str, int],
    dtype: str = "float32",
    augment_dim: int = 0,
) -> Networks:
    """Linen modules with StyleGAN's methods as functions, which compute in a type.

    augment_dim: the last of D's labels, which G's have not.
    """
    g, d = in_dtype(g, dtype), in_dtype(d, dtype)

    def init(key: Key, label: OneHot) -> dict[str, PyTree]:
        keys = jax.random.split(key)
        made = g.init(keys[0], jnp.zeros((1, g.z_dim)), label)["params"]
        image = jnp.zeros((1, g.resolution, g.resolution, g.image_channels))
        parts = [*([] if label is None else [label]), jnp.zeros((1, augment_dim))]
        d_label = jnp.concatenate(parts, -1) if augment_dim else label
        return {"g": made, "d": d.init(keys[1], image, d_label)["params"]}

    def synthesize(params: PyTree, ws: Array, noise: dict[str, Array], **grown: Any) -> Array:
        return _apply(g, params, ws, noise, method="synthesize", **grown)

    return Networks(
        init,
        lambda params, z, label: _apply(g, params, z, label, method="map"),
        synthesize,
        lambda params, x, label, **grown: _apply(d, params, x, label, **grown),
        g.resolution,
        g.z_dim,
        g.num_ws,
        g.w_dim,
        noise_sides,
    )


def stylegan2_networks(
    gan: GANConfig, style: StyleConfig, own: ArchitectureConfig, data: DataConfig, dtype: str = "float32", augment_dim: int = 0
) -> Networks:
    """StyleGAN2, at its whole resolution; augment_dim: what D takes of an image's augmentation, after the classes."""
    g, d = stylegan2_generator(gan, style, own, data), stylegan2_discriminator(gan, own, data, augment_dim)
    return style_networks(g, d, stylegan2.noise_planes(g.resolution), dtype, augment_dim)


def stylegan2_generator(gan: GANConfig, style: StyleConfig, own: ArchitectureConfig, data: DataConfig) -> stylegan2.Generator:
    """StyleGAN2's generator of the images' side, or the next power of 2."""
    side, channels, classes = shape_of(data, gan.conditional)
    return stylegan2.Generator(
        gan.z_dim, classes, style.w_dim, side, channels, style.mapping_layers, style.mapping_lr_mul, gan.channel_base,
        gan.channel_max, own.generator, own.conv_clamp or None,
    )  # fmt: skip


def stylegan2_discriminator(
    gan: GANConfig, own: ArchitectureConfig, data: DataConfig, augment_dim: int = 0
) -> stylegan2.Discriminator:
    """StyleGAN2's discriminator, which StyleGAN3 keeps; augment_dim: what it is given after the classes."""
    side, channels, classes = shape_of(data, gan.conditional)
    return stylegan2.Discriminator(
        classes + augment_dim, side, channels, gan.channel_base, gan.channel_max, own.discriminator, own.conv_clamp or None,
        group=own.group,
    )  # fmt: skip


def stylegan1_networks(gan: GANConfig, style: StyleConfig, data: DataConfig, dtype: str = "float32") -> Networks:
    """StyleGAN, which can grow."""
    g = stylegan1_generator(gan, style, data)
    d = stylegan1.Discriminator(g.c_dim, g.resolution, g.image_channels, gan.channel_base, gan.channel_max)
    return style_networks(g, d, stylegan1.noise_planes(g.resolution), dtype)


def stylegan1_generator(gan: GANConfig, style: StyleConfig, data: DataConfig) -> stylegan1.Generator:
    """StyleGAN's generator of the images' side, or the next power of 2."""
    side, channels, classes = shape_of(data, gan.conditional)
    return stylegan1.Generator(
        gan.z_dim, classes, style.w_dim, side, channels, style.mapping_layers, style.w_dim, style.mapping_lr_mul,
        gan.channel_base, gan.channel_max,
    )  # fmt: skip


def progan_networks(gan: GANConfig, critic: CriticConfig, data: DataConfig, dtype: str = "float32") -> Networks:
    """ProGAN, which can grow. It has no mapping: the latent and the label side by side take the place of w."""
    side, channels, classes = shape_of(data, gan.conditional)
    widths = (gan.channel_base, gan.channel_max)
    g = in_dtype(progan.Generator(gan.z_dim, classes, side, channels, *widths), dtype)
    d = in_dtype(progan.Discriminator(classes, side, channels, *widths, group=critic.group or None), dtype)

    def init(key: Key, label: OneHot) -> dict[str, PyTree]:
        keys = jax.random.split(key)
        # A whole network in the middle of its fading has every weight.
        made = g.init(keys[0], jnp.zeros((1, gan.z_dim)), label, fade=0.5)["params"]
        return {"g": made, "d": d.init(keys[1], jnp.zeros((1, side, side, channels)), label, fade=0.5)["params"]}

    def join(params: PyTree, z: Array, label: OneHot) -> Array:
        return z if label is None else jnp.concatenate([z, label], -1)

    def synthesize(params: PyTree, ws: Array, noise: dict[str, Array], **grown: Any) -> Array:
        z, label = ws[:, 0, : gan.z_dim], ws[:, 0, gan.z_dim :] if classes else None
        return _apply(g, params, z, label, **grown)

    def discriminate(params: PyTree, x: Array, label: OneHot, **grown: Any) -> Array:
        return _apply(d, params, x, label, **grown)

    return Networks(init, join, synthesize, discriminate, side, gan.z_dim, 1, gan.z_dim + classes, {})
