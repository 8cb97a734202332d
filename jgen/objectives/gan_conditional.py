"""Class conditions of a GAN: terms of the discriminator's class logits, embeddings and codes, each minimised.

Odena et al. 2016 (arXiv:1610.09585): AC; Hou et al. 2021 (arXiv:2107.10060): ADC; Gong et al. 2019 (arXiv:1907.02690): TAC;
Kavalerov et al. 2019 (arXiv:1912.04216): multi-hinge; Kang & Park 2020 (arXiv:2006.12681): 2C; Kang et al. 2021
(arXiv:2111.01118): D2D-CE; Miyato & Koyama 2018 (arXiv:1802.05637): projection; Salimans et al. 2016 (arXiv:1606.03498):
feature matching; Chen et al. 2016 (arXiv:1606.03657): InfoGAN. Labels are int [B]; every loss is a scalar.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jgen.errors import UserError
from jgen.types import Array

Criterion = Callable[[Array, Array], Array]
"""(class logits [B, K], label [B]) -> scalar."""


def cross_entropy(logits: Array, label: Array) -> Array:
    """The mean of -log softmax(logits [B, K]) at the label: the auxiliary classifier's loss (AC), for both players."""
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, label))


def _lead(logits: Array, label: Array) -> tuple[Array, Array]:
    """(the label's logit less each other one [B, K]; one-hot labels, to mask its zeros against itself)."""
    target = jax.nn.one_hot(label, logits.shape[-1], dtype=logits.dtype)
    return jnp.sum(logits * target, axis=-1, keepdims=True) - logits, target


def classes_margin(logits: Array, label: Array) -> Array:
    """The mean over the other classes of their logit less the label's."""
    lead, target = _lead(logits, label)
    return -jnp.sum(lead * (1 - target)) / jnp.sum(1 - target)


def classes_hinge(logits: Array, label: Array) -> Array:
    """The mean lead of the label's logit over the others, each of which counts while it is less than 1 below the label's."""
    lead, target = _lead(logits, label)
    return jnp.sum(jax.nn.relu(1 - lead) * (1 - target)) / jnp.sum(1 - target)


def multi_hinge(logits: Array, label: Array) -> Array:
    """The mean hinge by which the label's logit of [B, K + 1] leads the best other one by less than 1 (Crammer-Singer).

    Column K is "fake": the discriminator's label of fake images.
    """
    lead, target = _lead(logits, label)
    return jnp.mean(jax.nn.relu(1 - jnp.min(jnp.where(target > 0, jnp.inf, lead), axis=-1)))


def _check_pairs(logits: Array) -> None:
    if logits.shape[-1] % 2:
        raise UserError(f"logits={logits.shape}: two a class are needed, so an even last axis")


def adc_d(
    real_logits: Array, real_label: Array, fake_logits: Array, fake_label: Array, criterion: Criterion = cross_entropy
) -> Array:
    """Auxiliary discriminative classifier, for D: tells real class c (column 2c of [B, 2K]) from fake class c (2c + 1).

    criterion: `cross_entropy`, or `classes_hinge`. Raises UserError for an odd number of columns.
    """
    _check_pairs(real_logits)
    return criterion(real_logits, 2 * real_label) + criterion(fake_logits, 2 * fake_label + 1)


def adc_g(logits: Array, label: Array, criterion: Criterion = cross_entropy) -> Array:
    """ADC for G, of fake images' logits [B, 2K]: towards its class's real column, away from the fake one.

    criterion: `cross_entropy`, or `classes_margin` where D's is the hinge. Raises UserError for an odd number of columns.
    """
    _check_pairs(logits)
    return criterion(logits, 2 * label) - criterion(logits, 2 * label + 1)


def tac_g(ac_logits: Array, mi_logits: Array, label: Array) -> Array:
    """Twin auxiliary classifiers, for G: agrees with the classifier, and not with its twin that knows fake images only.

    Both logits are [B, K] of fake images. D minimises the `cross_entropy` of each head.
    """
    return cross_entropy(ac_logits, label) - cross_entropy(mi_logits, label)


def _unit(v: Array) -> Array:
    """Rows of norm 1. The floor is on the square: under a root a row of zeros would have an infinite slope."""
    return v * lax.rsqrt(jnp.maximum(jnp.sum(v * v, axis=-1, keepdims=True), 1e-16))


def _similarities(embed: Array, proxy: Array, label: Array, temperature: float) -> tuple[Array, Array, Array, Array]:
    """Cosines with the own proxy [B] and with the batch [B, B]; masks [B, B] of other images, and of the same class."""
    if temperature <= 0:
        raise UserError(f"temperature={temperature}: must be above 0")
    unit, others = _unit(embed), ~jnp.eye(len(embed), dtype=bool)
    return jnp.sum(unit * _unit(proxy), axis=-1), unit @ unit.T, others, label[:, None] == label[None]


def contrastive_2c(embed: Array, proxy: Array, label: Array, temperature: float = 1.0) -> Array:
    """ContraGAN's conditional contrastive loss of image embeddings [B, D], with the label's class proxy [B, D] of each.

    -log of the share that the proxy and images of the same class have in exp(cosine / temperature), over the proxy and
    all other images of the batch. Raises UserError unless temperature > 0.
    """
    own, cosines, others, same = _similarities(embed, proxy, label, temperature)
    logits = jnp.concatenate([own[:, None], cosines], axis=1) / temperature
    everyone, alike = (jnp.pad(mask, ((0, 0), (1, 0)), constant_values=True) for mask in (others, others & same))
    return jnp.mean(jax.nn.logsumexp(logits, axis=1, where=everyone) - jax.nn.logsumexp(logits, axis=1, where=alike))


def d2d_ce(embed: Array, proxy: Array, label: Array, temperature: float = 0.5, m_p: float = 0.98) -> Array:
    """ReACGAN's data-to-data cross-entropy of embeddings [B, D], with the label's class proxy [B, D] of each.

    The proxy attracts up to a cosine of m_p, and images of other classes repel down to 1 - m_p. As in the authors' code
    each row's repulsions are relative to its strongest one (over all other images), held constant. Raises UserError
    unless temperature > 0.
    """
    own, cosines, others, same = _similarities(embed, proxy, label, temperature)
    pull = jax.nn.relu((m_p - own) / temperature)
    push = jnp.where(others, jax.nn.relu((cosines + m_p - 1) / temperature), 0.0)
    push = push - lax.stop_gradient(jnp.max(push, axis=1, keepdims=True))
    repulsion = jnp.sum(jnp.where(same, 0.0, jnp.exp(push)), axis=1)
    return jnp.mean(pull + jnp.log(jnp.exp(-pull) + repulsion))


def projection(features: Array, embedding: Array, psi: Array) -> Array:
    """The projection discriminator's logits [B]: features [B, D] . the label's embedding [B, D] + psi [B] of the features."""
    return jnp.sum(features * embedding, axis=-1) + psi


def feature_matching(real: Array, fake: Array) -> Array:
    """Mean absolute difference of the batch means of discriminator features [B, D], for G.

    The paper's is the squared norm of that difference.
    """
    return jnp.mean(jnp.abs(jnp.mean(real, axis=0) - jnp.mean(fake, axis=0)))


def normal_nll(x: Array, mean: Array, variance: Array, eps: float = 1e-6) -> Array:
    """InfoGAN's continuous codes x [B, D]: the mean of -log N(x; mean, variance), summed over codes, in nats.

    eps is added to 2 pi variance and to 2 variance, so that a variance near zero stays finite.
    """
    log_scale = 0.5 * jnp.log(2 * jnp.pi * variance + eps)
    return jnp.mean(jnp.sum(log_scale + jnp.square(x - mean) / (2 * variance + eps), axis=-1))
