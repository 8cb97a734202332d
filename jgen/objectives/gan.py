"""Adversarial losses: pure functions of a discriminator's logits, which are large for what it takes to be real.

Goodfellow et al. 2014 (arXiv:1406.2661): minimax and non-saturating; Mao et al. 2016 (arXiv:1611.04076): least squares;
Arjovsky et al. 2017 (arXiv:1701.07875): Wasserstein; Lim & Ye 2017 (arXiv:1705.02894): hinge; Jolicoeur-Martineau 2018
(arXiv:1807.00734): relativistic; Tseng et al. 2021 (arXiv:2104.03310): LeCam; Sinha et al. 2020 (arXiv:2002.06224): top-k.
Every loss is a mean over all logits and is minimised. Penalties on gradients are in `gan_penalties`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jgen.errors import UserError
from jgen.types import Array

LogitLoss = Callable[[Array], Array]
"""A loss of each logit, elementwise."""


class Adversarial(NamedTuple):
    """The losses of both players. Logits are [B]; a map of them, [B, H, W], is averaged over as well."""

    d: Callable[[Array, Array], Array]
    """(real logits, fake logits) -> scalar."""
    g: Callable[[Array, Array], Array]
    """(fake logits, real logits) -> scalar; only relativistic losses look at the real ones."""


def separate(real: LogitLoss, fake: LogitLoss, generator: LogitLoss) -> Adversarial:
    """Losses that look at one logit at a time: D's of real and of fake ones, which are summed, and G's of fake ones."""
    return Adversarial(
        d=lambda real_logits, fake_logits: jnp.mean(real(real_logits)) + jnp.mean(fake(fake_logits)),
        g=lambda fake_logits, real_logits: jnp.mean(generator(fake_logits)),
    )


def summed(loss: Adversarial) -> Adversarial:
    """The loss of several discriminators, whose logits come as sequences: each one's own, added up (StyleGAN-XL's backbones).

    In StyleGAN-XL's training code each row of logits became a discriminator of its own by an accident of list extension, so
    that its losses are larger by the images of a device; weights relative to them, such as guidance's, are so too.
    """

    def of(own: Callable[[Array, Array], Array]) -> Callable[..., Array]:
        return lambda one, other: sum((own(a, b) for a, b in zip(one, other, strict=True)), jnp.zeros(()))

    return Adversarial(of(loss.d), of(loss.g))


def scaled(loss: Adversarial, factor: float) -> Adversarial:
    """Both players' losses times a factor."""
    return Adversarial(lambda real, fake: factor * loss.d(real, fake), lambda fake, real: factor * loss.g(fake, real))


def _softplus_neg(x: Array) -> Array:
    return jax.nn.softplus(-x)


def _hinge_real(x: Array) -> Array:
    return jax.nn.relu(1 - x)


def _hinge_fake(x: Array) -> Array:
    return jax.nn.relu(1 + x)


minimax = separate(_softplus_neg, jax.nn.softplus, lambda x: -jax.nn.softplus(x))
"""The game's own value: G minimises log(1 - sigmoid(fake)), whose gradient vanishes where D is sure (saturates)."""

non_saturating = separate(_softplus_neg, jax.nn.softplus, _softplus_neg)
"""Logistic, with G maximising log sigmoid(fake): what StyleGAN and most others train with."""

least_squares = separate(lambda x: 0.5 * (x - 1) ** 2, lambda x: 0.5 * x**2, lambda x: 0.5 * (x - 1) ** 2)
"""Targets 1 for real and 0 for fake; G's target is 1. All with the paper's factor of a half."""

hinge = separate(_hinge_real, _hinge_fake, lambda x: -x)
"""Margins of 1 for D; G maximises the logit. BigGAN's."""

wasserstein = separate(lambda x: -x, lambda x: x, lambda x: -x)
"""D is a critic, to be kept Lipschitz: by a gradient penalty or by clipping its weights."""


def _paired(better: Array, worse: Array) -> Array:
    if better.shape != worse.shape:
        raise UserError(f"logits={better.shape} and {worse.shape}: real and fake are paired, so their shapes must be equal")
    return jnp.mean(jax.nn.softplus(worse - better))


relativistic_paired = Adversarial(d=_paired, g=_paired)
"""Logistic in real - fake, the n-th real with the n-th fake: RpGAN, and with R1 and R2 R3GAN (arXiv:2501.05441).

Raises UserError where the shapes of real and fake logits differ.
"""


def relativistic_average_of(real: LogitLoss, fake: LogitLoss) -> Adversarial:
    """Relativistic average losses: each logit is taken relative to the mean of the other side's, with gradient through it.

    real, fake: the loss of a relative logit that ought to be large, and small. Both players' are means of two halves.
    """

    def loss(better: Array, worse: Array) -> Array:
        return 0.5 * (jnp.mean(real(better - jnp.mean(worse))) + jnp.mean(fake(worse - jnp.mean(better))))

    return Adversarial(d=loss, g=loss)


relativistic_average = relativistic_average_of(_softplus_neg, jax.nn.softplus)
"""RaSGAN: logistic."""

relativistic_average_least_squares = relativistic_average_of(lambda x: (x - 1) ** 2, lambda x: (x + 1) ** 2)
"""RaLSGAN: targets 1 and -1."""

relativistic_average_hinge = relativistic_average_of(_hinge_real, _hinge_fake)
"""RaHingeGAN."""


def top_k(fake_logits: Array, k: int) -> Array:
    """The k greatest of the logits [B], greatest first: what G is trained on, instead of all; k is static.

    Raises UserError unless 1 <= k <= B. The paper lowers k from B to B / 2 as training goes on.
    """
    if not 1 <= k <= len(fake_logits):
        raise UserError(f"k={k}: must be from 1 to the {len(fake_logits)} logits there are")
    return lax.top_k(fake_logits, k)[0]


class LeCam(NamedTuple):
    """Moving averages of the mean logits, scalars; a pytree for `extra`."""

    real: Array
    fake: Array


def lecam_state() -> LeCam:
    """Averages before any batch: zeros, which the first `lecam_update` overwrites."""
    return LeCam(jnp.zeros(()), jnp.zeros(()))


def lecam_update(
    state: LeCam, real_logits: Array, fake_logits: Array, step: Array | int, *, decay: float = 0.99, start: int = 1
) -> LeCam:
    """The averages after a batch; before step `start` they are this batch's means alone. Carries no gradient.

    start must be at least 1 for the averages to begin without a bias towards zero. Raises UserError otherwise.
    """
    if start < 1 or not 0 <= decay < 1:
        raise UserError(f"start={start}, decay={decay}: must be at least 1, and from 0 to below 1")
    keep = jnp.where(jnp.asarray(step) < start, 0.0, decay)
    means = LeCam(jnp.mean(real_logits), jnp.mean(fake_logits))
    return jax.tree.map(lambda old, new: lax.stop_gradient(keep * old + (1 - keep) * new), state, means)


def lecam(state: LeCam, real_logits: Array, fake_logits: Array) -> Array:
    """LeCam regulariser, to be weighed and added to D's loss: a scalar.

    It draws real logits down to the average of the fake ones, and fake ones up to that of the real ones. The absolute
    differences of the paper count here where D is right only, as in its authors' code.
    """
    down = jax.nn.relu(real_logits - state.fake)
    up = jax.nn.relu(state.real - fake_logits)
    return jnp.mean(down**2) + jnp.mean(up**2)
