"""The blur of what a discriminator sees at the start of training, which fades: config R of StyleGAN3, and StyleGAN-XL.

Karras et al. 2021 (arXiv:2106.12423), appendix F. Weights are 2^-(i / sigma)^2, to the base 2, as in the authors' code.
"""

import jax.numpy as jnp

from jgen.errors import UserError
from jgen.nn.warp import along
from jgen.objectives.augmentation import Augmentation
from jgen.types import Array, Extra, Key


def blur_sigma(images: Array | float, start: float, kimg: float) -> Array:
    """The sigma after so many images of training: from `start` to 0 in kimg thousand; 0 for a kimg of at most 1."""
    if kimg <= 1:
        return jnp.zeros(())
    return start * jnp.maximum(1 - jnp.asarray(images) / (kimg * 1000), 0)


def blurred(x: Array, sigma: Array, largest: float) -> Array:
    """x [B, H, W, C] filtered along both axes, zero beyond its edges; taps reach floor(3 sigma) pixels, and 0 leaves x alone.

    sigma may be traced; it is at most `largest`, which is static. Raises UserError for a largest sigma below 0.
    """
    if largest < 0:
        raise UserError(f"blur_init_sigma={largest}: must be at least 0")
    reach = jnp.floor(3 * sigma)

    def matrix(size: int) -> Array:
        apart = jnp.abs(jnp.arange(size)[:, None] - jnp.arange(size)[None])
        taps = jnp.arange(-int(3 * largest), int(3 * largest) + 1)
        level = lambda i: jnp.where(jnp.abs(i) <= reach, jnp.exp2(-((i / jnp.maximum(sigma, 1e-6)) ** 2)), 0.0)  # noqa: E731
        return (level(apart) / jnp.sum(level(taps))).astype(x.dtype)

    return along(x, matrix(x.shape[1]), matrix(x.shape[2])) if largest else x


def fading_blur(then: Augmentation, start: float, kimg: float) -> Augmentation:
    """An augmentation of images that are blurred first, by a sigma that fades.

    extra["blur_images"] counts images of D's updates. Without a start it is the augmentation itself.
    Raises UserError as `blurred` does.
    """
    if not start:
        return then

    def augment(key: Key, images: Array, extra: Extra) -> Array:
        return then.augment(key, blurred(images, blur_sigma(extra["blur_images"], start, kimg), start), extra)

    def adapt(extra: Extra, real: Array) -> Extra:
        return {**then.adapt(extra, real), "blur_images": extra["blur_images"] + len(real)}

    return then._replace(augment=augment, adapt=adapt, state={**then.state, "blur_images": jnp.zeros((), jnp.int32)})
