"""Projected GAN (Sauer et al. 2021, arXiv:2111.01007): FastGAN's generator against heads on a frozen network's features.

The hinge loss, no regulariser, DiffAugment with its smaller hole, and a blur that fades. Diffusion-GAN's flavour diffuses the
features. G samples with the average of its weights, and with the batch statistics and singular vectors of the last step.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.arrays import shard_like
from jgen.config import DataConfig, LabelSampling, StyleSampling, TrainConfig
from jgen.config.diffusion_gan import DiffusionGANConfig
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig
from jgen.edit import noise as noise_kinds
from jgen.models.gan import fastgan
from jgen.nn.precision import in_dtype
from jgen.objectives.adversarial import GAN, discriminator_loss, generator_loss
from jgen.objectives.augmentation import NO_AUGMENTATION, Augmentation
from jgen.objectives.blur import fading_blur
from jgen.objectives.diffaug import diffaug
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.diffused import diffused_features, process_of
from jgen.recipes.gan.feature_heads import HOLE, feature_heads, hinge_of, separately
from jgen.recipes.gan.images import cropped, pad, shape_of
from jgen.train import Phase
from jgen.train.lazy import ema_decay
from jgen.train.rates import rated_adam
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, Extra, Key, Params


class Latents(NamedTuple):
    """Latents of a FastGAN generator."""

    z: Array
    """[B, Z]."""
    noise: dict[str, Array]
    """Planes of `fastgan.noise_planes`."""


class ProjectedRecipe(NamedTuple):
    """The settings of a run."""

    gan: FastGANConfig
    heads: FeatureHeadsConfig
    data: DataConfig
    sampling: LabelSampling | StyleSampling
    diffusion: DiffusionGANConfig | None = None
    """Diffuses the features that D sees."""


def hole_augment(config: FeatureHeadsConfig) -> Augmentation:
    """The images that D sees: blurred at first, then DiffAugment with a hole of a fifth of the side.

    With several feature networks DiffAugment is theirs, drawn for each by the condition's noise_key.
    """
    first = NO_AUGMENTATION
    if config.d_augment == "diffaug":
        first = Augmentation(lambda key, images, extra: diffaug(key, images, hole=HOLE))
        first = Augmentation(condition=_with_key) if separately(config) else first
    return fading_blur(first, config.blur_sigma, config.blur_kimg)


def _with_key(key: Key, images: Array, extra: Extra, condition: Condition) -> Condition:
    """The condition with the key of augmentations that every feature network draws for itself."""
    data = jax.random.key_data(key)
    return condition.replace(noise_key=shard_like(jnp.broadcast_to(data[None], (len(images), *data.shape)), images))


def projected_gan(recipe: ProjectedRecipe, state: Extra, dtype: str = "float32") -> GAN:
    """Both players; state: further entries of extra at the start. dtype is that of their layers."""
    config, data = recipe.gan, recipe.data
    side, channels, classes = shape_of(data, config.conditional)
    lite = config.generator == "fastgan_lite"
    g = in_dtype(fastgan.Generator(side, channels, config.width, classes, lite), dtype)
    process = None if recipe.diffusion is None else process_of(recipe.diffusion)
    d = feature_heads(recipe.heads, classes, process, dtype=dtype)
    planes = fastgan.noise_planes(side, lite)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys, label = jax.random.split(key), jnp.zeros(1, jnp.int32) if classes else None
        made = g.init(keys[0], jnp.zeros((1, config.z_dim)), label, {k: jnp.zeros((1, n, n, 1)) for k, n in planes.items()})
        params, own = d.init(keys[1], channels)
        return {"g": made["params"], **params}, {"g": {k: v for k, v in made.items() if k != "params"}, "d": own, **state}

    def latents(keys: Key, condition: Condition) -> Latents:
        return Latents(samplers.noise(keys, (config.z_dim,)), noise_kinds.planes(keys, planes))

    def train_latents(key: Key, images: Array, rows: int) -> Latents:
        z_key, noise_key = jax.random.split(key)
        noise = noise_kinds.planes(jax.random.split(noise_key, rows), planes)
        return shard_like(Latents(jax.random.normal(z_key, (rows, config.z_dim)), noise), images)

    def generate(params: Params, extra: Extra, z: Latents, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        variables = {"params": params["g"], **extra["g"]}
        label = condition.label if classes else None
        images, new = g.apply(variables, z.z, label, z.noise, train=train, mutable=["batch_stats", "spectral"])
        return images, {"g": new}

    return GAN(
        init, latents, train_latents, generate, d.discriminate, classes=classes, state_moves_in=frozenset({"g", "d"}),
        prepare=lambda extra, images: pad(images, side),
    )  # fmt: skip


def projected_stage(recipe: ProjectedRecipe, train: TrainConfig) -> Stage:
    """The one stage of a run."""
    config, data, augment = recipe.gan, recipe.data, hole_augment(recipe.heads)
    if recipe.diffusion is not None:
        augment = diffused_features(recipe.diffusion, augment)
    form = projected_gan(recipe, augment.state, train.dtype)
    adam, loss = rated_adam(config.learning_rate, 0.0, 0.99), hinge_of(recipe.heads)

    def sample(params: Params, extra: Extra, keys: Key, options: LabelSampling | StyleSampling) -> Array:
        condition = Condition(label=samplers.class_labels(keys, options.label, form.classes))
        images = form.generate(params, extra, form.latents(keys, condition), condition, train=False)[0]
        return jnp.clip(cropped(images, data.shape[0]), -1, 1)

    return Stage(
        name="projected_gan",
        data=data,
        train=train,
        init=form.init,
        phases=[Phase("g", generator_loss(form, loss, augment)), Phase("d", discriminator_loss(form, loss, augment))],
        optimizers={"g": adam, "d": adam},
        ema={"g": ema_decay(data.batch_size, config.ema_kimg, config.ema_rampup or None)},
        supports=frozenset(("dtype",)),
        sample=sample,
        options=recipe.sampling,
        evaluate=modes(data, sample, recipe.sampling),
    )
