"""Latents that are improved before they are used: LOGAN's natural-gradient step, and CS-GAN's steps of gradient descent.

Wu et al. 2019, "LOGAN: Latent Optimisation for Generative Adversarial Networks" (arXiv:1912.00953); Wu et al. 2019, "Deep
Compressed Sensing" (arXiv:1905.06723), whose code is deepmind-research/cs_gan. Latents are [B, Z]. Gradients flow through every
step, to the weights that shaped it; nothing here holds anything constant.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.types import Array

Projection = Literal["clip", "norm"]


def squared_distance(z: Array, start: Array) -> Array:
    """The mean over the batch of |z - start|^2: the cost of a move, a scalar."""
    return jnp.mean(jnp.sum((z - start) ** 2, -1))


def natural_gradient(
    score: Callable[[Array], Array],
    z: Array,
    uniform: Array,
    *,
    alpha: float = 0.9,
    beta: float = 5.0,
    rate: float = 0.8,
    steps: int = 1,
    form: Literal["paper", "studiogan"] = "paper",
) -> tuple[Array, Array]:
    """LOGAN's move: (z after it, in [-1, 1]; its cost, the mean of |delta|^2 over the batch, a scalar).

    score: z -> D's logits [B], each of its own image. A step adds delta = alpha g / (beta + |g|^2), g the gradient of the
    logit: alpha scales it and beta damps it. uniform [B] in [0, 1): a share `rate` of the batch moves, those above 1 - rate;
    the cost counts every image's delta. form: the paper's algorithm has `steps` of them, and is run with 1; "studiogan" takes
    one step whatever `steps` says, as its code does. Raises UserError for rate outside [0, 1], beta < 0 or steps < 1.
    """
    if not 0 <= rate <= 1 or beta < 0 or steps < 1:
        raise UserError(f"rate={rate}, beta={beta}, steps={steps}: must be from 0 to 1, at least 0, and at least 1")
    cost, moves = jnp.zeros((), z.dtype), (uniform > 1 - rate)[:, None]
    for _ in range(steps if form == "paper" else 1):
        g = jax.grad(lambda z: jnp.sum(score(z)))(z)
        delta = alpha * g / (beta + jnp.sum(g**2, -1, keepdims=True))
        z = jnp.clip(z + jnp.where(moves, delta, 0.0), -1.0, 1.0)
        cost += jnp.mean(jnp.sum(delta**2, -1))
    return z, cost


def project(z: Array, projection: Projection) -> Array:
    """z [B, Z] clipped to [-1, 1], or scaled to norm 1."""
    if projection == "clip":
        return jnp.clip(z, -1.0, 1.0)
    return z * lax.rsqrt(jnp.maximum(jnp.sum(z**2, -1, keepdims=True), 1e-12))


def gradient_steps(
    loss: Callable[[Array], Array], z: Array, *, step_size: Array | float, steps: int = 3, projection: Projection = "norm"
) -> Array:
    """CS-GAN's move: z after each step [steps, B, Z], projected before the first step and after every one.

    loss: z [B, Z] -> a scalar. The authors' step size is the exponential of a weight, which is trained with G. The cost of the
    move is `squared_distance` from the latents before they were projected. Raises UserError for steps < 1.
    """
    if steps < 1:
        raise UserError(f"steps={steps}: must be at least 1")

    def step(z: Array, _: None) -> tuple[Array, Array]:
        z = project(z - step_size * jax.grad(loss)(z), projection)
        return z, z

    return lax.scan(step, project(z, projection), None, length=steps)[1]


def measurement_error(measure: Callable[[Array], Array], images: Array, samples: Array) -> Array:
    """The squared distances [B] of measurements [B, M] of images and of samples: what compressed sensing moves latents by."""
    return jnp.sum((measure(images) - measure(samples)) ** 2, -1)


def restricted_isometry(measure: Callable[[Array], Array], first: Array, second: Array) -> Array:
    """How far measurements [B, M] are from keeping the distance of two images, squared [B], for Deep Compressed Sensing."""
    pixels = jnp.linalg.norm((first - second).reshape(len(first), -1), axis=-1)
    return (pixels - jnp.linalg.norm(measure(first) - measure(second), axis=-1)) ** 2
