"""R3GAN's losses (Huang et al. 2024, arXiv:2501.05441): relativistic pairing with R1 and R2 in every step.

The k-th real and the k-th fake are a pair of one label. Both penalties are of the gradient at the image before augmentation,
which D's logits have passed through, as in the authors' code (brownvc/R3GAN).
"""

import jax
import jax.numpy as jnp

from jgen.objectives.adversarial import GAN, Logits, condition_of, scores
from jgen.objectives.augmentation import NO_AUGMENTATION, Augmentation
from jgen.objectives.gan import relativistic_paired
from jgen.objectives.gan_penalties import r1, r2
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params


def relativistic_r1_r2(gan: GAN, gamma: Array | float, augment: Augmentation = NO_AUGMENTATION) -> LossFn:
    """D's loss; gamma is the weight of both penalties, of which each is gamma / 2 x the mean squared norm."""

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        latent_key, real_key, fake_key = jax.random.split(key, 3)
        x, condition = gan.prepare(extra, batch["image"]), condition_of(gan, batch)
        images, _ = gan.generate(params, extra, gan.train_latents(latent_key, x, len(x)), condition, train=True)
        images = jax.lax.stop_gradient(images)

        def logits(key: Key) -> Logits:
            return lambda x: scores(
                gan.discriminate(params, extra, augment.augment(key, x, extra), condition, train=True)[0].logits
            )

        real, fake = logits(real_key)(x), logits(fake_key)(images)
        penalty = r1(logits(real_key), x, jnp.asarray(gamma)) + r2(logits(fake_key), images, jnp.asarray(gamma))
        metrics = {"real_logits": jnp.mean(real), "fake_logits": jnp.mean(fake), "penalty": penalty}
        return relativistic_paired.d(real, fake) + penalty, (extra, metrics)

    return loss
