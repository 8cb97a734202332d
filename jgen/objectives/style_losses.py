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
