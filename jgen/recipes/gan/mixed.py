"""U-Net GAN's mixed images as a part of D's loss."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jgen.arrays import shard_like
from jgen.config import DataConfig, TrainConfig
from jgen.config.biggan import BigGANConfig, CutMixConfig, TruncatedSampling
from jgen.objectives import cutmix
from jgen.objectives.adversarial import Judge, Mixing, Sides
from jgen.objectives.gan import non_saturating
from jgen.recipes.gan.biggan import biggan_stage
from jgen.train.stage import Stage
from jgen.types import Array, Key


def cutmix_loss(config: CutMixConfig) -> Callable[[Array], Mixing]:
    """steps so far -> D's loss, which with a growing probability is that of mixed images alone.

    The coin is one for the whole batch, as in the authors' code; where it says so the loss of mixed images and their
    consistency takes the place of the plain one.
    """

    def at(step: Array) -> Mixing:
        warm = jnp.minimum(1.0, step / max(config.cutmix_warmup, 1)) if config.cutmix_warmup else 1.0

        def mixing(judge: Judge, key: Key, sides: Sides, plain: Array) -> Array:
            coin_key, draw_key = jax.random.split(key)
            real, fake = sides.real_images, lax.stop_gradient(sides.fake_images)

            def mixed(_: None) -> Array:
                draws = shard_like(cutmix.draw(draw_key, real), real)
                maps = cutmix.boxes(draws, *real.shape[1:3])
                pixels, image = judge(cutmix.mix(maps, real, fake)).logits
                of_pixels, of_image = cutmix.mixed_loss(pixels, image, maps)
                same = cutmix.consistency(pixels, sides.real.logits[0], sides.fake.logits[0], maps)
                return of_pixels + of_image + config.consistency_weight * same

            coin = jax.random.uniform(coin_key) < config.cutmix * warm
            return lax.cond(coin, mixed, lambda _: plain, None)

        return mixing

    return at


def unetgan_stage(
    config: BigGANConfig, mixing: CutMixConfig, data: DataConfig, train: TrainConfig, options: TruncatedSampling
) -> Stage:
    """U-Net GAN's training, of BigGAN's generator and a discriminator with a decoder."""
    return biggan_stage(config, data, train, options, adversarial=non_saturating, mixing=cutmix_loss(mixing))
