"""Losses of any GAN in one form, of players that are written down: what ADA adapts by, what CutMix is given."""

import jax
import jax.numpy as jnp
import numpy as np

from jgen.objectives import gan as laws
from jgen.objectives.adversarial import GAN, Sides, discriminator_loss, signs
from jgen.objectives.augmentation import Augmentation
from jgen.types import DiscriminatorOutput

BATCH = {"image": jax.random.normal(jax.random.key(0), (4, 3, 3, 1))}
SHIFTED = Augmentation(lambda key, images, extra: images + jax.random.normal(key, images.shape))


def two_heads() -> GAN:
    """D with the pixels themselves as one head's logits, and their mean as the other's."""

    def discriminate(params, extra, images, condition, *, train):
        return DiscriminatorOutput((images[..., 0], jnp.mean(images, (1, 2, 3)))), {}

    return GAN(
        init=lambda key, batch: ({}, {}),
        latents=lambda keys, condition: keys,
        train_latents=lambda key, x, rows: jax.random.normal(key, (rows, *x.shape[1:])),
        generate=lambda params, extra, z, condition, *, train: (z, {}),
        discriminate=discriminate,
    )


def test_signs_are_of_every_logit_of_every_head():
    heads = (jnp.asarray([[1.0, 1, -9], [-1, -1, 9]]), jnp.asarray([5.0, -5]))
    np.testing.assert_allclose(signs(heads), [2 / 4, -2 / 4])
    np.testing.assert_allclose(signs(jnp.asarray([3.0, -0.1])), [1, -1])
    seen = []
    kept = SHIFTED._replace(adapt=lambda extra, real: seen.append(real) or extra)
    discriminator_loss(two_heads(), laws.hinge, kept)({}, {}, jax.random.key(1), BATCH)
    assert seen[0].shape == (4,)
    assert set(np.round(np.asarray(seen[0]) * 10).astype(int)) <= set(range(-10, 11, 2))


def test_what_is_mixed_are_the_images_that_the_discriminator_judged():
    def mixing(judge, key, sides: Sides, value):
        for images, output in ((sides.real_images, sides.real), (sides.fake_images, sides.fake)):
            for again, before in zip(judge(images).logits, output.logits, strict=True):
                np.testing.assert_allclose(again, before, rtol=1e-6)
        return value + 1

    plain, _ = discriminator_loss(two_heads(), laws.hinge, SHIFTED)({}, {}, jax.random.key(1), BATCH)
    mixed, _ = discriminator_loss(two_heads(), laws.hinge, SHIFTED, mixing=mixing)({}, {}, jax.random.key(1), BATCH)
    np.testing.assert_allclose(mixed, plain + 1)
