"""BigGAN's players as functions: those of SAGAN, heads for classes, U-Net GAN and IC-GAN too."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig
from jgen.config.biggan import BigGANConfig
from jgen.errors import UserError
from jgen.models.gan import biggan, biggan_deep, sngan, unetgan
from jgen.nn.precision import in_dtype
from jgen.nn.spectral import SpectralNorm
from jgen.objectives import class_heads
from jgen.objectives.adversarial import GAN
from jgen.objectives.class_heads import ClassLoss
from jgen.recipes.gan.images import pad, shape_of
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, Params, PyTree

MOVING = ["batch_stats", "spectral"]


def sampling_state(extra: Extra) -> Mapping[str, PyTree]:
    """The state of G's layers that images are sampled in: the average where there is one."""
    return extra.get("g_average", extra["g"])


class Players(NamedTuple):
    """The networks, and what a set makes of them."""

    g: biggan.Generator | biggan_deep.Generator | sngan.Generator
    d: nn.Module
    side: int
    channels: int
    classes: int
    features: int = 0
    """Numbers of an instance's features; 0 for players without instances."""

    def inputs(self, condition: Condition) -> tuple[Array | None, ...]:
        """Classes, and features of instances, as the networks take them. Raises UserError for features of another network."""
        label = None if condition.label is None else jax.nn.one_hot(condition.label, self.classes)
        if not self.features:
            return () if label is None else (label,)
        if condition.features is None or condition.features.shape[-1] != self.features:
            found = "none" if condition.features is None else f"{condition.features.shape[-1]} numbers"
            raise UserError(f"features={found}: of another network; this model takes {self.features} numbers")
        return label, condition.features

    @property
    def examples(self) -> tuple[Array | None, ...]:
        """Two zeros of each of `inputs`."""
        label = jnp.zeros(2, jnp.int32) if self.classes else None
        return self.inputs(Condition(label=label, features=jnp.zeros((2, self.features)) if self.features else None))


class Instances(NamedTuple):
    """Sizes of the features of instances, and of their embedding in G; 0 for players without instances."""

    features: int = 0
    embedding: int = 0


NO_INSTANCES = Instances()


def players(
    config: BigGANConfig, data: DataConfig, unet: bool, instances: Instances = NO_INSTANCES, dtype: str = "float32"
) -> Players:
    """Both networks of a config, which compute in a type.

    Raises UserError for z that its chunks don't divide, and settings that don't go together.
    """
    side, channels, classes = shape_of(data, config.conditional)
    norm, instance = SpectralNorm(config.sn_epsilon) if config.spectral else None, instances.features > 0
    common: Any = dict(classes=classes, attention=config.attention, norm=norm, initializer=config.initializer)
    if instance and (config.network == "deep" or config.head != "projection"):
        raise UserError(
            f"network={config.network}, head={config.head}: with instances the network is biggan, the head projection"
        )
    if config.head == "projection" and config.class_weight != 1:
        raise UserError(f"class_weight={config.class_weight:g}: has no effect with --head projection; leave it out")
    if unet and config.head != "projection":
        raise UserError(f"head={config.head}: U-Net GAN's discriminator judges classes by projection alone")
    if config.network == "deep":
        if unet or not classes or not config.hierarchical:
            raise UserError("network=deep: needs classes and hierarchical latents, and its own discriminator")
        common["slope"] = config.slope
        g = biggan_deep.Generator(side, channels, config.width, config.z_dim, shared_dim=config.shared_dim, **common)
        d = biggan_deep.Discriminator(side, config.width, head=config.head, **common)
        return Players(in_dtype(g, dtype), in_dtype(d, dtype), side, channels, classes)
    if config.slope and (unet or config.network == "sn_dcgan"):
        raise UserError(f"slope={config.slope}: the activations of sn_dcgan and of U-Net GAN's discriminator are fixed")
    if config.network == "sn_dcgan":
        if unet or classes or instance or config.attention:
            raise UserError("network=sn_dcgan: takes --no-conditional and an empty --attention; no instances, no mixed images")
        g = sngan.Generator(side, channels, config.width, config.initializer)
        d = sngan.Discriminator(side, config.width, norm, config.initializer)
        return Players(in_dtype(g, dtype), in_dtype(d, dtype), side, channels, 0)
    if not classes and not config.hierarchical and not instance:
        raise UserError("conditional=False: without classes the norms take parts of z, so hierarchical must be True")
    shared = config.hierarchical or config.shared or instance
    how: Any = dict(hierarchical=config.hierarchical, shared=shared, shared_dim=config.shared_dim, slope=config.slope)
    g = biggan.Generator(side, channels, config.width, config.z_dim, shared_features=instances.embedding, **how, **common)
    _ = g.chunk  # which says so where z can't be divided
    if unet:
        d: Any = unetgan.Discriminator(side, config.width, **common)
    else:
        d = biggan.Discriminator(side, config.width, instance=instance, head=config.head, slope=config.slope, **common)
    return Players(in_dtype(g, dtype), in_dtype(d, dtype), side, channels, classes, instances.features)


def biggan_form(config: BigGANConfig, made: Players) -> GAN:
    """The players as functions; extra["g"] has G's running statistics and u, extra["d"] D's u."""

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys, inputs = jax.random.split(key), made.examples
        image = jnp.zeros((2, made.side, made.side, made.channels))
        found = [made.g.init(keys[0], jnp.zeros((2, config.z_dim)), *inputs), made.d.init(keys[1], image, *inputs)]
        params = {name: each["params"] for name, each in zip("gd", found)}
        state = {name: {k: each[k] for k in MOVING if k in each} for name, each in zip("gd", found)}
        average = {"g_average": jax.tree.map(jnp.copy, state["g"])} if config.ema_statistics else {}
        return params, {**state, **average, "d_steps": jnp.zeros((), jnp.int32)}

    def generate(params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        variables = {"params": params["g"], **(extra["g"] if train else sampling_state(extra))}
        if not train:
            return made.g.apply(variables, z, *made.inputs(condition)), {}  # pyright: ignore[reportReturnType]
        images, state = made.g.apply(variables, z, *made.inputs(condition), train=True, mutable=MOVING)
        return images, {"g": dict(state)}

    def discriminate(
        params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        variables, inputs = {"params": params["d"], **extra["d"]}, made.inputs(condition)
        if not train:
            return made.d.apply(variables, images, *inputs), {}  # pyright: ignore[reportReturnType]
        found, state = made.d.apply(variables, images, *inputs, mutable=["spectral"])
        return found, {"d": dict(state)}  # pyright: ignore[reportReturnType]

    return GAN(
        init=init,
        latents=lambda keys, condition: samplers.noise(keys, (config.z_dim,)),
        train_latents=lambda key, images, rows: shard_like(jax.random.normal(key, (rows, config.z_dim)), images),
        generate=generate,
        discriminate=discriminate,
        classes=made.classes,
        state_moves_in=frozenset({"g", "d"}),
        one_pass=True,
        class_loss=weighted(_class_loss(config), config.class_weight),
        prepare=lambda extra, images: pad(images, made.side),
    )


def _class_loss(config: BigGANConfig) -> ClassLoss:
    return class_heads.auxiliary if config.head == "projection" else getattr(class_heads, config.head)


def weighted(loss: ClassLoss, weight: float) -> ClassLoss:
    """The losses of classes times a weight."""
    return ClassLoss(
        lambda real, fake, label: weight * loss.d(real, fake, label), lambda fake, label: weight * loss.g(fake, label)
    )
