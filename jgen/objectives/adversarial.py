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
from jgen.objectives.class_heads import ClassLoss, auxiliary
from jgen.objectives.gan import Adversarial
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, LossFn, Metrics, Params, PyTree

Logits = Callable[[Array], Array]
"""Images -> logits [B] of one discriminator."""
Regularizer = Callable[[Logits, Key, Array, Array], Array | float]
"""(logits of images, key, reals, fakes) -> a scalar that is added to D's loss; the images are those before augmentation."""


Move = Callable[[Params, Extra, Key | None, PyTree, Condition], tuple[PyTree, Array]]
"""(params, extra, key, or None in sampling, latents, condition) -> (better latents, what the move adds to G's loss)."""
Judge = Callable[[Array], DiscriminatorOutput]
"""Images -> D's output, with the conditions of the batch."""


class Sides(NamedTuple):
    """Reals and fakes as D sees them, augmented, and its outputs for both."""

    real_images: Array
    fake_images: Array
    real: DiscriminatorOutput
    fake: DiscriminatorOutput


Mixing = Callable[[Judge, Key, Sides, Array], Array]
"""(D, key, both sides, the step's loss) -> D's loss instead, where something is made of both sides: CutMix's."""


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
    instances: bool = False
    """Both players take batch["features"], those of an instance (IC-GAN)."""
    state_moves_in: frozenset[str] = frozenset({"g"})
    """In whose updates ("g", "d") the state that `generate` changes is kept."""
    class_loss: ClassLoss = auxiliary
    """The terms of D's heads for classes, where it has such."""
    one_pass: bool = False
    """D takes reals and fakes in one pass, so that its state moves once in its update; else in turn, reals first."""
    move: Move | None = None
    """How latents are moved before both players' updates."""
    prepare: Callable[[Extra, Array], Array] = lambda extra, images: images
    """(extra, images of the set) -> reals as large and as faded as the generator's images."""


def condition_of(gan: GAN, batch: Batch, rows: int | None = None) -> Condition:
    """The first `rows` labels and instances of a batch, as far as the GAN takes them; generated images are given them too."""
    return Condition(
        label=batch["label"][:rows] if gan.classes else None, features=batch["features"][:rows] if gan.instances else None
    )


def discriminate_augmented(
    gan: GAN, params: Params, extra: Extra, images: Array, condition: Condition, key: Key, augment: Augmentation
) -> tuple[DiscriminatorOutput, Extra]:
    """D's output for augmented images, and for the condition that goes with them."""
    condition = augment.condition(key, images, extra, condition)
    return gan.discriminate(params, extra, augment.augment(key, images, extra), condition, train=True)


def scores(logits: Array | tuple[Array, ...]) -> Array:
    """Logits as one number an image [B]: means over pixels, and over heads."""
    if isinstance(logits, tuple):
        return sum(map(scores, logits), jnp.zeros(())) / len(logits)
    return logits if logits.ndim == 1 else jnp.mean(logits.reshape(len(logits), -1), -1)


def signs(logits: Array | tuple[Array, ...]) -> Array:
    """The mean sign of an image's logits [B], which ADA adapts by: every pixel and position of every head counts alike."""
    heads = logits if isinstance(logits, tuple) else (logits,)
    return jnp.mean(jnp.concatenate([jnp.sign(head).reshape(len(head), -1) for head in heads], 1), 1)


def over_heads(
    loss: Callable[[Array, Array], Array], first: Array | tuple[Array, ...], second: Array | tuple[Array, ...]
) -> Array:
    """The mean over D's heads of a loss of two sides' logits."""
    if not isinstance(first, tuple) or not isinstance(second, tuple):
        return loss(jnp.asarray(first), jnp.asarray(second))
    return sum((loss(a, b) for a, b in zip(first, second, strict=True)), jnp.zeros(())) / len(first)


def _names_classes(output: DiscriminatorOutput) -> bool:
    return output.class_logits is not None or output.embedding is not None


def _fakes(
    gan: GAN, params: Params, extra: Extra, key: Key, x: Array, condition: Condition, batches: int = 1
) -> tuple[Array, Extra, Array]:
    """(so many batches of generated images, the entries of extra that change, the cost of moving the latents)."""
    z, cost = gan.train_latents(key, x, batches * len(x)), jnp.zeros(())
    if gan.move is not None:
        z, cost = gan.move(params, extra, jax.random.fold_in(key, 1), z, condition)
    images, moved = gan.generate(params, extra, z, condition, train=True)
    return images, moved, cost


def generator_loss(gan: GAN, adversarial: Adversarial, augment: Augmentation = NO_AUGMENTATION, batches: int = 1) -> LossFn:
    """G's main loss, of so many batches of fakes; they have the batch's labels."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        latent_key, real_key, fake_key, _ = jax.random.split(key, 4)
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)
        requested = jax.tree.map(lambda c: jnp.repeat(c, batches, 0), condition) if batches > 1 else condition
        images, moved, cost = _fakes(gan, params, extra, latent_key, x, requested, batches)
        fake, state = discriminate_augmented(gan, params, extra, images, requested, fake_key, augment)
        # The reals' output is left out of the program where no loss asks for it.
        real, _ = discriminate_augmented(gan, params, extra, x, condition, real_key, augment)
        value = over_heads(adversarial.g, fake.logits, real.logits) + cost
        if requested.label is not None and _names_classes(fake):
            value += gan.class_loss.g(fake, requested.label)
        kept = moved if "g" in gan.state_moves_in else {}
        return value, ({**extra, **kept, **state}, {"fake_logits": jnp.mean(scores(fake.logits))})

    return loss


def discriminator_loss(
    gan: GAN,
    adversarial: Adversarial,
    augment: Augmentation = NO_AUGMENTATION,
    regularizers: Sequence[Regularizer] = (),
    mixing: Mixing | None = None,
) -> LossFn:
    """D's main loss and the regularisers that every step adds to it, such as WGAN-GP's penalty.

    Regularisers take images before augmentation, for every GAN alike. D judges reals and fakes in one state, as if it saw them
    in one batch; what its state becomes depends on neither (spectral normalisation's).
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        latent_key, real_key, fake_key, penalty_key = jax.random.split(key, 4)
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)
        images, moved, _ = _fakes(gan, params, extra, latent_key, x, condition)
        # Moved latents depend on D, so its gradient has this path; without a move nothing here does.
        images = images if gan.move is not None else jax.lax.stop_gradient(images)
        real, state = discriminate_augmented(gan, params, extra, x, condition, real_key, augment)
        before = extra if gan.one_pass else {**extra, **state}
        fake, later = discriminate_augmented(gan, params, before, images, condition, fake_key, augment)
        later = {} if gan.one_pass else later
        value = over_heads(adversarial.d, real.logits, fake.logits)
        if condition.label is not None and _names_classes(real):
            value += gan.class_loss.d(real, fake, condition.label)

        def judge(x: Array) -> DiscriminatorOutput:
            return gan.discriminate(params, extra, x, condition, train=True)[0]

        def logits_of(x: Array) -> Array:
            return scores(judge(x).logits)

        if mixing is not None:
            sides = Sides(augment.augment(real_key, x, extra), augment.augment(fake_key, images, extra), real, fake)
            value = mixing(judge, jax.random.fold_in(penalty_key, len(regularizers)), sides, value)
        # The first has the key itself: numbers from before there were several stay as they are.
        keys = [penalty_key if i == 0 else jax.random.fold_in(penalty_key, i) for i in range(len(regularizers))]
        penalty = sum((regularizer(logits_of, k, x, images) for regularizer, k in zip(regularizers, keys)), 0.0)
        kept = moved if "d" in gan.state_moves_in else {}
        extra = augment.adapt({**extra, **kept, **state, **later}, jax.lax.stop_gradient(signs(real.logits)))
        metrics = {"real_logits": jnp.mean(scores(real.logits)), "fake_logits": jnp.mean(scores(fake.logits))}
        return value + penalty, (extra, {**metrics, "penalty": jnp.asarray(penalty)} if regularizers else metrics)

    return loss
