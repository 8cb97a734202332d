"""R3GAN: a relativistic GAN of plain ResNets, with R1 and R2 and five schedules (Huang et al. 2024, arXiv:2501.05441)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig, LabelSampling, TrainConfig
from jgen.config.biggan import R3GANConfig
from jgen.errors import UserError
from jgen.models.gan.r3gan import BASE, Discriminator, Generator
from jgen.nn.precision import in_dtype
from jgen.objectives import ada, augmentation
from jgen.objectives.adversarial import GAN, generator_loss
from jgen.objectives.augmentation import NO_AUGMENTATION, Augmentation
from jgen.objectives.gan import relativistic_paired
from jgen.objectives.r3gan import relativistic_r1_r2
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.images import cropped, pad, shape_of
from jgen.recipes.gan.sampling import sampler
from jgen.train import Phase
from jgen.train.rates import half_cosine, rated
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, Metrics, Params, PyTree

Schedule = Callable[[Array], Array]
"""Steps so far -> value."""


def r3gan_form(config: R3GANConfig, data: DataConfig, augment: Augmentation, dtype: str = "float32") -> GAN:
    """The players; extra counts the steps of D. Raises UserError for groups that don't divide the width."""
    expansion, (side, channels, classes) = 2, shape_of(data, config.conditional)
    stages = (side // BASE).bit_length()
    if config.width * expansion % config.group_size:
        raise UserError(f"group_size={config.group_size}: must divide width x {expansion} = {config.width * expansion}")
    groups = config.width * expansion // config.group_size
    lists = ((config.width,) * stages, (groups,) * stages, (config.blocks,) * stages)
    sizes: Any = dict(expansion=expansion, classes=classes, embedding=config.embedding if classes else 0)
    g = in_dtype(Generator(*lists, channels=channels, z_dim=config.z_dim, **sizes), dtype)
    d = in_dtype(Discriminator(*lists, **sizes), dtype)

    def label_inputs(condition: Condition) -> tuple[Array, ...]:
        return () if condition.label is None else (jax.nn.one_hot(condition.label, classes),)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys, label = jax.random.split(key), [jnp.zeros((1, classes))] if classes else []
        made = g.init(keys[0], jnp.zeros((1, config.z_dim)), *label)["params"]
        critic = d.init(keys[1], jnp.zeros((1, side, side, channels)), *label)["params"]
        return {"g": made, "d": critic}, {"d_steps": jnp.zeros((), jnp.int32), **augment.state}

    def train_latents(key: Key, images: Array, rows: int) -> Array:
        return shard_like(jax.random.normal(key, (rows, config.z_dim)), images)

    def generate(params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        images: Array = g.apply({"params": params["g"]}, z, *label_inputs(condition))  # pyright: ignore[reportAssignmentType]
        return images if train else jnp.clip(cropped(images, data.shape[0]), -1, 1), {}

    def discriminate(
        params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        return d.apply({"params": params["d"]}, images, *label_inputs(condition)), {}  # pyright: ignore[reportReturnType]

    return GAN(
        init=init,
        latents=lambda keys, condition: samplers.noise(keys, (config.z_dim,)),
        train_latents=train_latents,
        generate=generate,
        discriminate=discriminate,
        classes=classes,
        prepare=lambda extra, images: pad(images, side),
    )


def schedule(config: R3GANConfig, ends: tuple[float, float], batch: int, steps: int) -> Schedule:
    """A value's way from its first to its last, along half a cosine of the images so far."""
    total = config.anneal_kimg * 1000 / batch if config.anneal_kimg else float(steps)
    return lambda step: half_cosine(step, *ends, total)


def scheduled_ada(config: R3GANConfig) -> Augmentation:
    """R3GAN's augmentation, ADA's without its adaptation: its strength is set before every loss."""
    if max(config.augment_p) <= 0:
        return NO_AUGMENTATION
    return augmentation.adaptive(ada.R3GAN)._replace(adapt=lambda extra, real: extra)


def r3gan_losses(config: R3GANConfig, form: GAN, augment: Augmentation, gamma: Schedule, p: Schedule) -> list[Phase]:
    """D's phase and then G's, each under the values that the steps so far give."""

    def now(extra: Extra) -> Extra:
        return {**extra, "ada": {**extra["ada"], "p": p(extra["d_steps"])}} if augment.state else extra

    def d_loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        loss = relativistic_r1_r2(form, gamma(extra["d_steps"]), augment)
        value, (extra, metrics) = loss(params, now(extra), key, batch)
        return value, ({**extra, "d_steps": extra["d_steps"] + 1}, metrics)

    return [Phase("d", d_loss), Phase("g", generator_loss(form, relativistic_paired, augment))]


def r3gan_stage(config: R3GANConfig, data: DataConfig, train: TrainConfig, options: LabelSampling) -> Stage:
    """The training of both players, D before G in every step.

    The authors draw other reals for G's update; here both updates of a step see one batch.
    """
    augment = scheduled_ada(config)
    form = r3gan_form(config, data, augment, train.dtype)
    rate, gamma, beta_2, kimg, p = (
        schedule(config, ends, data.batch_size, train.steps)
        for ends in (config.rates, config.gammas, config.beta_2, config.ema_kimg, config.augment_p)
    )

    def adam() -> optax.GradientTransformation:
        return rated(optax.inject_hyperparams(optax.adam)(learning_rate=rate, b1=0.0, b2=beta_2, eps=1e-8), rate)

    def decay(step: Array) -> Array:
        return 0.5 ** (data.batch_size / jnp.maximum(1000 * kimg(step), 1e-8))

    sample = sampler(form)
    return Stage(
        name="r3gan",
        data=data,
        train=train,
        init=form.init,
        phases=r3gan_losses(config, form, augment, gamma, p),
        optimizers={"g": adam(), "d": adam()},
        ema={"g": decay},
        supports=frozenset(("dtype",)),
        sample=sample,
        options=options,
        evaluate=modes(data, sample, options),
    )
