"""The lazy regularisers of style-based GANs, as losses of phases of their own: path length of G, and R1 of D.

Karras et al. 2020 (arXiv:1912.04958, appendix B). A phase that runs every `interval` steps multiplies its loss by interval.
"""

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.objectives.adversarial import GAN, condition_of, discriminate_augmented, scores
from jgen.objectives.augmentation import NO_AUGMENTATION, Augmentation
from jgen.objectives.gan_penalties import path_length, r1
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params


def r1_loss(gan: GAN, gamma: float, interval: int = 16, augment: Augmentation = NO_AUGMENTATION) -> LossFn:
    """D's regulariser: R1, times interval.

    The gradient is that of the logits of augmented reals at the reals before augmentation, as in the authors' code.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)

        def logits_of(x: Array) -> Array:
            return scores(discriminate_augmented(gan, params, extra, x, condition, key, augment)[0].logits)

        penalty = r1(logits_of, x, gamma)
        return interval * penalty, (extra, {"penalty": penalty})

    return loss


def added(first: LossFn, second: LossFn) -> LossFn:
    """The sum of two losses of one update: the second is given the state that the first left, and a key of its own."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        value, (extra, metrics) = first(params, extra, key, batch)
        more, (extra, further) = second(params, extra, jax.random.fold_in(key, 1), batch)
        return value + more, (extra, {**metrics, **further})

    return loss


def path_loss(gan: GAN, weight: float = 2.0, interval: int = 4, shrink: int = 2, decay: float = 0.01) -> LossFn:
    """G's regulariser: path length of a batch / shrink, times interval; extra["pl_mean"] moves by `decay`.

    Raises UserError for a GAN without styles.
    """
    if gan.map is None or gan.synthesize is None:
        raise UserError("path_weight: only a style-based generator has a path length; take 0")
    mapping, synthesize = gan.map, gan.synthesize

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        images, (latent_key, noise_key) = gan.prepare(extra, batch["image"]), jax.random.split(key)
        rows = max(len(images) // shrink, 1)
        pl_noise = jax.random.normal(noise_key, (rows, *images.shape[1:]))
        z = gan.train_latents(latent_key, images, rows)
        ws, moved = mapping(params, extra, z, condition_of(gan, batch, rows))
        synthesis = lambda ws: synthesize(params, extra, ws, z)  # noqa: E731
        penalty, _, pl_mean = path_length(synthesis, ws, pl_noise, extra["pl_mean"], decay)
        value = jnp.mean(penalty)
        metrics = {"penalty": value, "pl_mean": pl_mean}
        return interval * weight * value, ({**extra, **moved, "pl_mean": pl_mean}, metrics)

    return loss


def late_path_loss(gan: GAN, weight: float, kimg: float) -> LossFn:
    """Path length of every update, from so many thousand images on, as StyleGAN-XL's authors train; before, it costs nothing.

    extra["path_images"] counts the images. Raises UserError as `path_loss` does.
    """
    penalty = path_loss(gan, weight, interval=1)

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        def early() -> tuple[Array, Array]:
            return jnp.zeros(()), extra["pl_mean"]

        def late() -> tuple[Array, Array]:
            value, (state, _) = penalty(params, extra, key, batch)
            return value, state["pl_mean"]

        images = extra["path_images"]
        value, pl_mean = jax.lax.cond(images >= kimg * 1000, late, early)
        extra_now = {**extra, "pl_mean": pl_mean, "path_images": images + len(batch["image"])}
        return value, (extra_now, {"path": value, "pl_mean": pl_mean})

    return loss


def path_state() -> Extra:
    """The entries of extra that `late_path_loss` begins with."""
    return {"pl_mean": jnp.zeros(()), "path_images": jnp.zeros((), jnp.int32)}
