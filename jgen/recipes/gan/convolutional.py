"""Convolutional GANs (DCGAN, WGAN-GP's ResNets) of any adversarial loss, penalty and conditioning."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import optax

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig, LabelSampling, TrainConfig
from jgen.config.gan import ConvGANConfig
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.models.gan import dcgan, wgan_gp
from jgen.objectives import augmentation, diffaug, gan, gan_penalties
from jgen.objectives.adversarial import GAN, Logits, Regularizer, discriminator_loss, generator_loss
from jgen.objectives.augmentation import Augmentation
from jgen.objectives.diffusion_gan import Process, diffusion
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.images import square
from jgen.recipes.gan.sampling import sampler
from jgen.train import Phase
from jgen.train.rates import Rated, decaying, ramped, rated, rated_adam
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Dtype, Extra, Key, Params, PyTree

PENALTY_WEIGHTS = {"clip": 0.01, "gp": 10.0, "dragan": 10.0, "r1": 1.0, "r1_r2": 1.0}
"""The papers'."""
LONGEST = Process().t_max
"""The longest of Diffusion-GAN's times."""


def with_weight(config: ConvGANConfig) -> ConvGANConfig:
    """The config with the papers' weight where none is given. Raises UserError for a critic that nothing keeps Lipschitz."""
    if config.loss == "wasserstein" and config.penalty == "none":
        raise UserError("penalty=none: a Wasserstein critic must be kept Lipschitz; take gp or clip")
    if config.penalty == "none":
        return config
    return replace(config, penalty_weight=config.penalty_weight or PENALTY_WEIGHTS[config.penalty])


def augmentation_of(config: ConvGANConfig) -> Augmentation:
    """The augmentation of a config. Raises UserError for settings of what does not adapt."""
    plain = ConvGANConfig()
    if config.augment in ("none", "diffaug"):
        for option in ("adapt_target", "adapt_kimg"):
            if (value := getattr(config, option)) != getattr(plain, option):
                raise UserError(f"{option}={value:g}: has no effect with --augment {config.augment}, which does not adapt")
        return augmentation.named(config.augment)
    if config.augment == "diffusion":
        return diffusion(Process(), target=config.adapt_target, kimg=config.adapt_kimg)
    return augmentation.named("ada", target=config.adapt_target, kimg=config.adapt_kimg)


def conv_gan(
    config: ConvGANConfig, data: DataConfig, dtype: Dtype = None, augment: Augmentation = augmentation.NO_AUGMENTATION
) -> GAN:
    """The players of a config; labels reach both as one-hot vectors, and G's batch statistics are extra["g"].

    Where images are diffused D has their time, as a share of the longest, in one more channel; images that are not, as the
    penalties', have the time 0.
    """
    timed = config.augment == "diffusion"
    classes = classes_of(data, config.conditioning != "none", f"conditioning={config.conditioning}")
    nets = {"dcgan": dcgan, "resnet": wgan_gp}[config.network]
    g = nets.Generator(square(data), data.shape[-1], config.width, dtype)
    d = nets.Discriminator(config.width, config.conditioning, dtype)

    def one_hot(condition: Condition) -> Array | None:
        return None if condition.label is None else jax.nn.one_hot(condition.label, classes)

    def with_time(images: Array, time: Array | None) -> Array:
        if not timed:
            return images
        share = jnp.zeros((len(images), 1), images.dtype) if time is None else time.astype(images.dtype) / LONGEST
        return jnp.concatenate([images, jnp.broadcast_to(share[:, None, None], (*images.shape[:-1], 1))], -1)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys, label = jax.random.split(key), jax.nn.one_hot(jnp.zeros(1, jnp.int32), classes) if classes else None
        made = g.init(keys[0], jnp.zeros((1, config.z_dim)), label)
        critic = d.init(keys[1], with_time(jnp.zeros((1, *data.shape)), None), label)["params"]
        return {"g": made["params"], "d": critic}, {"g": made["batch_stats"], **augment.state}

    def latents(keys: Key, condition: Condition) -> Array:
        return samplers.noise(keys, (config.z_dim,))

    def train_latents(key: Key, images: Array, rows: int) -> Array:
        return shard_like(jax.random.normal(key, (rows, config.z_dim)), images)

    def generate(params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        variables = {"params": params["g"], "batch_stats": extra["g"]}
        images, state = g.apply(variables, z, one_hot(condition), train=train, mutable=["batch_stats"])
        return images, {"g": state["batch_stats"]}

    def discriminate(
        params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        seen = with_time(images, condition.augment)
        found: DiscriminatorOutput = d.apply({"params": params["d"]}, seen, one_hot(condition))  # pyright: ignore
        return found, {}

    return GAN(init, latents, train_latents, generate, discriminate, classes=classes)


def gradient_penalty(config: ConvGANConfig) -> Regularizer:
    """The penalty of D's gradient, with its weight."""

    def value(logits: Logits, key: Key, real: Array, fake: Array) -> Array | float:
        mix_key, noise_key = jax.random.split(key)
        alphas = jax.random.uniform(mix_key, real.shape[:1])
        if config.penalty == "gp":
            return config.penalty_weight * gan_penalties.gradient_penalty(logits, real, fake, alphas)
        if config.penalty == "dragan":
            noise = jax.random.uniform(noise_key, real.shape)
            return config.penalty_weight * gan_penalties.dragan(logits, real, alphas, noise)
        if config.penalty in ("r1", "r1_r2"):
            of_real = gan_penalties.r1(logits, real, config.penalty_weight)
            return of_real + (gan_penalties.r2(logits, fake, config.penalty_weight) if config.penalty == "r1_r2" else 0.0)
        return 0.0

    return value


def consistency(weight: float) -> Regularizer:
    """How much D's logits change as images are moved and flipped, with its weight."""

    def value(logits: Logits, key: Key, real: Array, fake: Array) -> Array | float:
        if not weight:
            return 0.0
        real_key, fake_key = jax.random.split(key)
        moved_real, moved_fake = diffaug.consistency(real_key, real), diffaug.consistency(fake_key, fake)
        return gan_penalties.bcr(logits(real), logits(moved_real), logits(fake), logits(moved_fake), weight, weight)

    return value


def optimizers(config: ConvGANConfig, steps: int) -> dict[str, optax.GradientTransformation]:
    """Adam for both players, over so many steps of D; D's weights are clipped after each where that is the penalty."""

    def clipped(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple[PyTree, optax.EmptyState]:
        new = gan_penalties.clip_weights(optax.apply_updates(params, updates), config.penalty_weight)
        return jax.tree.map(jnp.subtract, new, params), state

    def adam(updates: int) -> Rated:
        rate = decaying(config.learning_rate, updates, final=config.final_learning_rate, kind="linear")
        return rated_adam(config.learning_rate if config.final_learning_rate == 1 else rate, config.beta_1, config.beta_2)

    clip = optax.GradientTransformation(lambda params: optax.EmptyState(), clipped)  # pyright: ignore[reportArgumentType]
    d = adam(steps)
    g = adam(steps // config.critic_steps)
    return {"d": rated(optax.chain(d, clip), d.rate) if config.penalty == "clip" else d, "g": g}


def gan_stage(config: ConvGANConfig, data: DataConfig, train: TrainConfig, options: LabelSampling) -> Stage:
    """The training of both players: D in every step, G in every critic_steps-th."""
    config = with_weight(config)
    if config.loss == "relativistic" and config.generator_batches > 1:
        raise UserError(f"generator_batches={config.generator_batches}: the relativistic loss compares as many fakes as reals")
    augment = augmentation_of(config)
    form = conv_gan(config, data, jnp.dtype(train.dtype), augment)
    adversarial = gan.relativistic_paired if config.loss == "relativistic" else getattr(gan, config.loss)
    regularizers = gradient_penalty(config), consistency(config.consistency)
    sample = sampler(form)
    return Stage(
        name="gan",
        data=data,
        train=train,
        init=form.init,
        phases=[
            Phase("d", discriminator_loss(form, adversarial, augment, regularizers)),
            Phase("g", generator_loss(form, adversarial, augment, config.generator_batches), every=config.critic_steps),
        ],
        optimizers=optimizers(config, train.steps),
        supports=frozenset(("dtype",)),
        ema={"g": ramped(config.ema)},
        sample=sample,
        options=options,
        evaluate=modes(data, sample, options),
    )
