"""Regularisers of GANs: penalties on the gradients of a discriminator or generator, on weights, and on consistency.

Gulrajani et al. 2017 (arXiv:1704.00028): WGAN-GP; Karras et al. 2017 (arXiv:1710.10196): drift; Kodali et al. 2017
(arXiv:1705.07215): DRAGAN; Zhou et al. 2019 (arXiv:1902.05687): max-GP; Mescheder et al. 2018 (arXiv:1801.04406): R1 and
R2; Arjovsky et al. 2017 (arXiv:1701.07875): clipping; Karras et al. 2019 (arXiv:1912.04958): path length; Brock et al. 2018
(arXiv:1809.11096): orthogonality; Zhang et al. 2019 (arXiv:1910.12027): CR; Zhao et al. 2020 (arXiv:2002.04724): bCR, zCR.
A discriminator is a function of images [B, H, W, C], labels closed over; every draw is an argument.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jgen.arrays import dot, expand_dims_like, root
from jgen.errors import UserError
from jgen.types import Array, PyTree

Discriminator = Callable[[Array], Array]
"""x [B, H, W, C] -> logits [B], each of its own image."""

Synthesis = Callable[[Array], Array]
"""ws [B, L, D] -> images [B, H, W, C], each of its own latents."""


def squared_gradient_norms(discriminator: Discriminator, x: Array) -> Array:
    """|dD/dx|^2 of each image [B]."""
    gradient = jax.grad(lambda x: jnp.sum(discriminator(x)))(x)
    return dot(gradient, gradient)


def _slope_error(discriminator: Discriminator, x: Array, slope: float = 1.0) -> Array:
    return jnp.mean((root(squared_gradient_norms(discriminator, x)) - slope) ** 2) / slope**2


def gradient_penalty(discriminator: Discriminator, real: Array, fake: Array, alphas: Array, slope: float = 1.0) -> Array:
    """WGAN-GP: the mean of (|dD/dx| - slope)^2 / slope^2 at alpha x real + (1 - alpha) x fake; a scalar, to be weighed (by 10).

    alphas [B] are uniform in [0, 1). The paper mixes so; its authors' code takes real + alpha x (fake - real), which is
    to give 1 - alphas here. The paper's slope is 1; ProGAN takes 750 for CIFAR-10.
    """
    a = expand_dims_like(alphas, real)
    return _slope_error(discriminator, a * real + (1 - a) * fake, slope)


def drift(real_logits: Array, weight: float = 1e-3) -> Array:
    """ProGAN's tether of a Wasserstein critic, whose level is free: weight x the mean squared real logit."""
    return weight * jnp.mean(jnp.square(real_logits))


def dragan(discriminator: Discriminator, real: Array, alphas: Array, noise: Array) -> Array:
    """(|dD/dx| - 1)^2 around the data, at real + alpha x std / 2 x noise; a scalar, to be weighed.

    alphas [B] and noise [B, H, W, C] are uniform in [0, 1); std is the (n - 1) deviation of all the batch's pixels.
    """
    std = jnp.std(real, ddof=1)
    return _slope_error(discriminator, real + expand_dims_like(alphas, real) * 0.5 * std * noise)


def max_gp(discriminator: Discriminator, x: Array) -> Array:
    """The greatest |dD/dx|^2 of the batch, a scalar: Lipschitz GANs', at mixed images as in `gradient_penalty`."""
    return jnp.max(squared_gradient_norms(discriminator, x))


def r1(discriminator: Discriminator, real: Array, gamma: Array | float = 1.0) -> Array:
    """gamma / 2 x the mean |dD/dx|^2 at real images; a scalar."""
    return 0.5 * gamma * jnp.mean(squared_gradient_norms(discriminator, real))


def r2(discriminator: Discriminator, fake: Array, gamma: Array | float = 1.0) -> Array:
    """gamma / 2 x the mean |dD/dx|^2 at fake images, whose gradient does not reach the generator; a scalar."""
    return r1(discriminator, lax.stop_gradient(fake), gamma)


def clip_weights(params: PyTree, c: float = 0.01) -> PyTree:
    """Every weight clipped to [-c, c], after each update of a Wasserstein critic. Raises UserError unless c > 0."""
    if c <= 0:
        raise UserError(f"c={c}: must be above 0")
    return jax.tree.map(lambda w: jnp.clip(w, -c, c), params)


def path_length(
    synthesis: Synthesis, ws: Array, pl_noise: Array, pl_mean: Array, decay: float = 0.01
) -> tuple[Array, Array, Array]:
    """StyleGAN2's path length regulariser: (penalty [B], to be weighed (by 2); lengths [B]; new mean, a scalar).

    pl_noise [B, H, W, C] is standard normal, a random direction among images; a length is the slope in ws towards it
    over the root of H x W, as the root of the mean over layers of squared norms. decay is how far the mean moves. The
    penalty is of deviations from the new mean, with gradient through it; the mean that is returned has none.
    """
    images, pull = jax.vjp(synthesis, ws)
    height, width = images.shape[1:3]
    (slope,) = pull((pl_noise / (height * width) ** 0.5).astype(images.dtype))
    lengths = root(jnp.mean(jnp.sum(jnp.square(slope), axis=2), axis=1))
    mean = pl_mean + decay * (jnp.mean(lengths) - pl_mean)
    return jnp.square(lengths - mean), lengths, lax.stop_gradient(mean)


def orthogonal(
    params: PyTree, strength: float = 1e-4, *, diagonal: bool = False, skip: Callable[[str], bool] = lambda path: False
) -> Array:
    """strength / 2 x the squared off-diagonal of W W^T, summed over the matrices in params: BigGAN's, a scalar.

    A row of W is what gives one output: the last axis of a kernel, the first of an "embedding"; the rest is flattened.
    diagonal: all of W W^T - I, as in Brock et al. 2016 (arXiv:1609.07093). Vectors and scalars have no part in it, nor
    has a leaf whose path ("shared/embedding") is skipped: BigGAN skips the classes' shared embedding.
    """

    def penalty(path: tuple, w: Array) -> Array:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if w.ndim < 2 or skip(name):
            return jnp.zeros((), w.dtype)
        rows = w.reshape(len(w), -1) if name.split("/")[-1] == "embedding" else w.reshape(-1, w.shape[-1]).T
        eye = jnp.eye(len(rows), dtype=w.dtype)
        gram = rows @ rows.T
        return jnp.sum(jnp.square(gram - eye if diagonal else gram * (1 - eye)))

    terms = jax.tree.leaves(jax.tree_util.tree_map_with_path(penalty, params))
    return 0.5 * strength * sum(terms, jnp.zeros(()))


def orthogonal_gradient(
    params: PyTree, strength: float = 1e-4, *, diagonal: bool = False, skip: Callable[[str], bool] = lambda path: False
) -> PyTree:
    """The regulariser's part of the gradients: 2 x strength x (masked W W^T) W, zeros where it has no part.

    It is the gradient of `orthogonal`, so adding that to a loss comes to the same.
    """
    return jax.grad(lambda params: orthogonal(params, strength, diagonal=diagonal, skip=skip))(params)


def cr(logits: Array, augmented: Array, weight: float = 10.0) -> Array:
    """Consistency: weight x the mean squared difference of D's logits of real images and of the same, augmented."""
    return weight * jnp.mean(jnp.square(logits - augmented))


def bcr(
    real: Array, real_augmented: Array, fake: Array, fake_augmented: Array, weight_real: float = 10.0, weight_fake: float = 10.0
) -> Array:
    """Balanced consistency: the same of D's logits of real images and of fake ones."""
    return cr(real, real_augmented, weight_real) + cr(fake, fake_augmented, weight_fake)


def zcr_d(fake: Array, fake_moved: Array, weight: float = 5.0) -> Array:
    """Latent consistency of D: of its logits of G(z) and of G(z + noise)."""
    return cr(fake, fake_moved, weight)


def zcr_g(images: Array, images_moved: Array, weight: float = 0.5) -> Array:
    """Latent consistency's other side, for G: less the mean squared difference of the images G(z) and G(z + noise)."""
    return -weight * jnp.mean(jnp.square(images - images_moved))
