"""A generator and a discriminator as functions, and the losses of both, written once for every GAN.

A GAN differs from another in its functions: networks, latents, conditions. An adversarial loss (`jgen.objectives.gan`), an
augmentation (`jgen.objectives.augmentation`), regularisers of D's logits and the loss of its class logits compose around them.
The players are "g" and "d"; state that no gradient moves is in extra. A function of the form that changes such state returns
the new values of the entries that change, and the losses keep them.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jgen.objectives.augmentation import NO_AUGMENTATION, Augmentation
from jgen.objectives.gan import Adversarial
from jgen.objectives.gan_conditional import cross_entropy
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, LossFn, Metrics, Params, PyTree

Logits = Callable[[Array], Array]
"""Images -> logits [B] of one discriminator."""
Regularizer = Callable[[Logits, Key, Array, Array], Array | float]
"""(logits of images, key, reals, fakes) -> a scalar that is added to D's loss; the images are those before augmentation."""


class Generate(Protocol):
    """(params, extra, latents, condition, train=) -> (images [B, H, W, C], the entries of extra that change)."""

    def __call__(
        self, params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool
    ) -> tuple[Array, Extra]: ...


class Discriminate(Protocol):
    """(params, extra, images, condition, train=) -> (output, the entries of extra that change)."""

    def __call__(
        self, params: Params, extra: Extra, images: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]: ...


class GAN(NamedTuple):
    """Any pair of players as functions: the one form of DCGAN, ProGAN, StyleGAN and what follows.

    Latents are any tree of arrays: a normal z, several of a hierarchy, or z with the noise planes of a style-based generator.
    """

    init: Callable[[Key, Batch], tuple[Params, Extra]]
    latents: Callable[[Key, Condition], PyTree]
    """(one key an image [B], condition) -> latents for sampling: those of image i depend on its key alone."""
    train_latents: Callable[[Key, Array, int], PyTree]
    """(key, images of the batch, rows) -> latents of so many rows for training, on the devices that hold the images."""
    generate: Generate
    discriminate: Discriminate
    map: Callable[[Params, Extra, PyTree, Condition], tuple[Array, Extra]] | None = None
    """(params, extra, latents, condition) -> (ws [B, num_ws, D], the entries of extra that change), if style-based."""
    synthesize: Callable[[Params, Extra, Array, PyTree], Array] | None = None
    """(params, extra, ws, latents, whose noise it takes) -> images, if style-based; `generate` is `map` and then this."""
    classes: int = 0
    """Classes that both players take; 0 for an unconditional GAN."""
    state_moves_in: frozenset[str] = frozenset({"g"})
    """In whose updates ("g", "d") the state that `generate` changes is kept."""
    prepare: Callable[[Extra, Array], Array] = lambda extra, images: images
    """(extra, images of the set) -> reals as large and as faded as the generator's images."""


def condition_of(gan: GAN, batch: Batch, rows: int | None = None) -> Condition:
    """The first `rows` labels of a batch, which generated images are given too; nothing for an unconditional GAN."""
    return Condition(label=batch["label"][:rows]) if gan.classes else Condition()


def discriminate_augmented(
    gan: GAN, params: Params, extra: Extra, images: Array, condition: Condition, key: Key, augment: Augmentation
) -> tuple[DiscriminatorOutput, Extra]:
    """D's output for augmented images, and for the condition that goes with them."""
    told = augment.condition(key, images, extra, condition)
    return gan.discriminate(params, extra, augment.augment(key, images, extra), told, train=True)


def _class_loss(output: DiscriminatorOutput, condition: Condition) -> Array | float:
    """The auxiliary classifier's loss (Odena et al. 2016, arXiv:1610.09585), where D names classes."""
    if output.class_logits is None or condition.label is None:
        return 0.0
    return cross_entropy(output.class_logits, condition.label)


def generator_loss(gan: GAN, adversarial: Adversarial, augment: Augmentation = NO_AUGMENTATION) -> LossFn:
    """G's main loss."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        latent_key, real_key, fake_key, _ = jax.random.split(key, 4)
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)
        images, moved = gan.generate(params, extra, gan.train_latents(latent_key, x, len(x)), condition, train=True)
        fake, state = discriminate_augmented(gan, params, extra, images, condition, fake_key, augment)
        real, _ = discriminate_augmented(
            gan, params, extra, x, condition, real_key, augment
        )  # left out where no loss asks for it
        value = adversarial.g(fake.logits, real.logits) + _class_loss(fake, condition)
        kept = moved if "g" in gan.state_moves_in else {}
        return value, ({**extra, **kept, **state}, {"fake_logits": jnp.mean(fake.logits)})

    return loss


def discriminator_loss(
    gan: GAN,
    adversarial: Adversarial,
    augment: Augmentation = NO_AUGMENTATION,
    regularizers: Sequence[Regularizer] = (),
) -> LossFn:
    """D's main loss and the regularisers that every step adds to it, such as WGAN-GP's penalty.

    Regularisers take images before augmentation, for every GAN alike.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        latent_key, real_key, fake_key, penalty_key = jax.random.split(key, 4)
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)
        images, moved = gan.generate(params, extra, gan.train_latents(latent_key, x, len(x)), condition, train=True)
        images = jax.lax.stop_gradient(images)
        real, state = discriminate_augmented(gan, params, extra, x, condition, real_key, augment)
        fake, later = discriminate_augmented(gan, params, {**extra, **state}, images, condition, fake_key, augment)
        value = adversarial.d(real.logits, fake.logits) + _class_loss(real, condition) + _class_loss(fake, condition)

        def logits_of(x: Array) -> Array:
            return gan.discriminate(params, extra, x, condition, train=True)[0].logits

        # The first has the key itself: numbers from before there were several stay as they are.
        keys = [penalty_key if i == 0 else jax.random.fold_in(penalty_key, i) for i in range(len(regularizers))]
        penalty = sum((regularizer(logits_of, k, x, images) for regularizer, k in zip(regularizers, keys)), 0.0)
        kept = moved if "d" in gan.state_moves_in else {}
        extra = augment.adapt({**extra, **kept, **state, **later}, jax.lax.stop_gradient(real.logits))
        metrics = {"real_logits": jnp.mean(real.logits), "fake_logits": jnp.mean(fake.logits)}
        return value + penalty, (extra, {**metrics, "penalty": jnp.asarray(penalty)} if regularizers else metrics)

    return loss
