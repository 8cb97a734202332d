"""BigGAN, and what shares its players: SAGAN, ADC-GAN and other heads for classes, U-Net GAN's D, moved latents."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, MovedSampling, TruncatedSampling
from jgen.errors import UserError
from jgen.nn.standing import standing_statistics
from jgen.objectives import augmentation, gan
from jgen.objectives.adversarial import GAN, Mixing, discriminator_loss, generator_loss
from jgen.objectives.gan import Adversarial
from jgen.objectives.gan_penalties import orthogonal
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.biggan_players import NO_INSTANCES, Instances, Players, biggan_form, players, sampling_state
from jgen.recipes.gan.images import cropped
from jgen.train import Phase
from jgen.train.rates import rated_adam
from jgen.train.stage import Stage
from jgen.train.step import Decay
from jgen.types import Array, Batch, Condition, Extra, Key, LossFn, Metrics, Params, Sample


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
        variables = {"params": params["g"], **sampling_state(extra)}
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


def averaging(loss: LossFn, config: BigGANConfig, accumulate: int) -> LossFn:
    """G's loss, which also moves extra["g_average"], the average of extra["g"], at the rate of the weights' average.

    accumulate: parts of a batch, each of which moves it.
    """
    if not config.ema_statistics:
        return loss

    def whole(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        value, (new, metrics) = loss(params, extra, key, batch)
        # D's steps are counted a part at a time, and this one's are done.
        started = extra["d_steps"] > config.ema_start * config.d_steps * accumulate
        decay = jnp.where(started, config.ema ** (1 / accumulate), 0.0)
        moved = jax.tree.map(lambda old, now: decay * old + (1 - decay) * now, extra["g_average"], new["g"])
        return value, ({**new, "g_average": jax.lax.stop_gradient(moved)}, metrics)

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
    made = players(config, data, mixing is not None, instances, train.dtype)
    form, augment = change(biggan_form(config, made)), augmentation.named(config.augment)

    def d_loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        mixes = mixing(extra["d_steps"]) if mixing else None
        loss = discriminator_loss(form, adversarial, augment, mixing=mixes)
        value, (extra, metrics) = loss(params, extra, key, batch)
        return value, ({**extra, "d_steps": extra["d_steps"] + 1}, metrics)

    g_loss = averaging(generator_loss(form, adversarial, augment), config, train.accumulate)
    g_loss = orthogonalized(g_loss, "g", config.ortho)
    moved = isinstance(options, MovedSampling)
    sample: Any = moved_sampler(form, data) if moved else truncated_sampler(made, config, data, conditions(made.classes))
    adam = {name: rated_adam(rate, config.beta_1, config.beta_2, config.epsilon) for name, rate in
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
        supports=frozenset(("dtype",)),
    )
