"""BigGAN, and what shares its players: SAGAN, ADC-GAN and other heads for classes, U-Net GAN's D, moved latents."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, MovedSampling, TruncatedSampling
from jgen.errors import UserError
from jgen.models.gan import biggan, biggan_deep, unetgan
from jgen.nn.spectral import SpectralNorm
from jgen.nn.standing import standing_statistics
from jgen.objectives import augmentation, class_heads, gan
from jgen.objectives.adversarial import GAN, Mixing, discriminator_loss, generator_loss
from jgen.objectives.class_heads import ClassLoss
from jgen.objectives.gan import Adversarial
from jgen.objectives.gan_penalties import orthogonal
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.images import cropped, pad, shape_of
from jgen.train import Phase
from jgen.train.stage import Stage
from jgen.train.step import Decay
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, LossFn, Metrics, Params, PyTree, Sample

MOVING = ["batch_stats", "spectral"]


class Players(NamedTuple):
    """The networks, and what a set makes of them."""

    g: biggan.Generator | biggan_deep.Generator
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


def players(config: BigGANConfig, data: DataConfig, unet: bool, instances: Instances = NO_INSTANCES) -> Players:
    """Both networks of a config.

    Raises UserError for z that its chunks don't divide, and settings that don't go together.
    """
    side, channels, classes = shape_of(data, config.conditional)
    norm, instance = SpectralNorm(config.sn_epsilon), instances.features > 0
    common: Any = dict(classes=classes, attention=config.attention, norm=norm, initializer=config.initializer)
    if instance and (config.network == "deep" or config.head != "projection"):
        raise UserError(
            f"network={config.network}, head={config.head}: with instances the network is biggan, the head projection"
        )
    if config.network == "deep":
        if unet or not classes or not config.hierarchical:
            raise UserError("network=deep: needs classes and hierarchical latents, and its own discriminator")
        g = biggan_deep.Generator(side, channels, config.width, config.z_dim, shared_dim=config.shared_dim, **common)
        d = biggan_deep.Discriminator(side, config.width, head=config.head, **common)
        return Players(g, d, side, channels, classes)
    if not classes and not config.hierarchical and not instance:
        raise UserError("conditional=False: without classes the norms take parts of z, so hierarchical must be True")
    how: Any = dict(hierarchical=config.hierarchical, shared=config.hierarchical or instance, shared_dim=config.shared_dim)
    g = biggan.Generator(side, channels, config.width, config.z_dim, shared_features=instances.embedding, **how, **common)
    _ = g.chunk  # which says so where z can't be divided
    d = unetgan.Discriminator(side, config.width, **common) if unet else None
    d = biggan.Discriminator(side, config.width, instance=instance, head=config.head, **common) if d is None else d
    return Players(g, d, side, channels, classes, instances.features)


def biggan_form(config: BigGANConfig, made: Players) -> GAN:
    """The players as functions; extra["g"] has G's running statistics and u, extra["d"] D's u."""

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys, inputs = jax.random.split(key), made.examples
        image = jnp.zeros((2, made.side, made.side, made.channels))
        found = [made.g.init(keys[0], jnp.zeros((2, config.z_dim)), *inputs), made.d.init(keys[1], image, *inputs)]
        params = {name: each["params"] for name, each in zip("gd", found)}
        state = {name: {k: each[k] for k in MOVING if k in each} for name, each in zip("gd", found)}
        return params, {**state, "d_steps": jnp.zeros((), jnp.int32)}

    def generate(params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        variables = {"params": params["g"], **extra["g"]}
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


def truncated(keys: Key, size: int, limit: float) -> Array:
    """Normal latents [B, size], drawn again where they are beyond the limit; 0 is without."""
    if not limit:
        return samplers.noise(keys, (size,))
    return jax.vmap(lambda key: jax.random.truncated_normal(key, -limit, limit, (size,)))(keys)


Conditions = Callable[[Extra, Key, Any], Condition]
"""(extra, keys [B], options of sampling) -> the condition of each image, which depends on its key alone."""


def conditions_by_label(classes: int) -> Conditions:
    """Classes alone."""
    return lambda extra, keys, options: Condition(label=samplers.class_labels(keys, options.label, classes))


def truncated_sampler(made: Players, config: BigGANConfig, data: DataConfig, conditions: Conditions) -> Sample:
    """Images with running statistics, or with standing ones, whose latents are the same for every batch of images."""

    def standing(variables: dict[str, Any], extra: Extra, options: TruncatedSampling) -> dict[str, Any]:
        keys = samplers.image_keys(0, options.passes * options.pass_size, 1 << 30)
        inputs = truncated(keys, config.z_dim, options.truncation), *made.inputs(conditions(extra, keys, options))
        passes = jax.tree.map(lambda each: each.reshape(options.passes, options.pass_size, -1), inputs)
        return standing_statistics(made.g.apply, variables, passes)

    def sample(params: Params, extra: Extra, keys: Key, options: TruncatedSampling) -> Array:
        if options.truncation and options.statistics != "standing":
            raise UserError(
                f"truncation={options.truncation}: statistics={options.statistics} are of whole latents; take standing"
            )
        variables = {"params": params["g"], **extra["g"]}
        variables = standing(variables, extra, options) if options.statistics == "standing" else variables
        inputs = made.inputs(conditions(extra, keys, options))
        images: Any = made.g.apply(variables, truncated(keys, config.z_dim, options.truncation), *inputs)
        return cropped(images, data.shape[0])

    return sample


def moved_sampler(form: GAN, data: DataConfig) -> Sample:
    """Images of latents as they are drawn, or moved first as in training."""

    def sample(params: Params, extra: Extra, keys: Key, options: MovedSampling) -> Array:
        condition = Condition(label=samplers.class_labels(keys, options.label, form.classes))
        z = form.latents(keys, condition)
        if options.move and form.move is not None:
            z, _ = form.move(params, extra, None, z, condition)
        return cropped(form.generate(params, extra, z, condition, train=False)[0], data.shape[0])

    return sample


def orthogonalized(loss: LossFn, player: str, strength: float) -> LossFn:
    """A loss and the orthogonal regularisation of a player's weights, but for the classes' shared embedding."""
    if not strength:
        return loss

    def whole(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        value, rest = loss(params, extra, key, batch)
        return value + orthogonal(params[player], strength, skip=lambda path: path.startswith("embedding/")), rest

    return whole


def ema_decay(config: BigGANConfig) -> Decay:
    """The decay a step of D: that of the config a step of G, and 0 before its start."""
    return lambda step: jnp.where(step < config.ema_start * config.d_steps, 0.0, config.ema ** (1 / config.d_steps))


def biggan_stage(
    config: BigGANConfig,
    data: DataConfig,
    train: TrainConfig,
    options: TruncatedSampling | MovedSampling,
    *,
    adversarial: Adversarial = gan.hinge,
    mixing: Callable[[Array], Mixing] | None = None,
    change: Callable[[GAN], GAN] = lambda form: form,
    instances: Instances = NO_INSTANCES,
    conditions: Callable[[int], Conditions] = conditions_by_label,
) -> Stage:
    """The training of both players: D in every step, G in every d_steps-th.

    mixing: steps so far -> U-Net GAN's mixed images, which gives D its decoder. change: of the form, such as to latents that
    move. conditions: classes -> those of samples.
    """
    made = players(config, data, mixing is not None, instances)
    form, augment = change(biggan_form(config, made)), augmentation.named(config.augment)

    def d_loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        mixes = mixing(extra["d_steps"]) if mixing else None
        loss = discriminator_loss(form, adversarial, augment, mixing=mixes)
        value, (extra, metrics) = loss(params, extra, key, batch)
        return value, ({**extra, "d_steps": extra["d_steps"] + 1}, metrics)

    g_loss = orthogonalized(generator_loss(form, adversarial, augment), "g", config.ortho)
    moved = isinstance(options, MovedSampling)
    sample: Any = moved_sampler(form, data) if moved else truncated_sampler(made, config, data, conditions(made.classes))
    adam = {name: optax.adam(rate, 0.0, config.beta_2, config.epsilon) for name, rate in
            (("g", config.g_rate), ("d", config.d_rate))}  # fmt: skip
    return Stage(
        name="gan",
        data=data,
        train=train,
        init=form.init,
        phases=[Phase("d", orthogonalized(d_loss, "d", config.ortho)), Phase("g", g_loss, every=config.d_steps)],
        optimizers=adam,
        ema={"g": ema_decay(config)},
        sample=sample,
        options=options,
        evaluate=modes(data, sample, options),
    )
