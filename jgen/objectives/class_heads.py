"""Losses of the heads by which a discriminator judges classes: what both players minimise besides the adversarial loss.

The terms, and their papers, are in `gan_conditional`. Labels are int [B]; generated images have those of the batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp

from jgen.errors import UserError
from jgen.objectives import gan_conditional
from jgen.objectives.gan_conditional import adc_d, adc_g, contrastive_2c, cross_entropy, d2d_ce, tac_g
from jgen.types import Array, DiscriminatorOutput


class ClassLoss(NamedTuple):
    """The terms of both players, scalars."""

    d: Callable[[DiscriminatorOutput, DiscriminatorOutput, Array], Array]
    """(output for reals, for fakes, label) -> D's."""
    g: Callable[[DiscriminatorOutput, Array], Array]
    """(output for fakes, label) -> G's."""


def _given(value: Array | None, name: str) -> Array:
    if value is None:
        raise UserError(f"{name}: this loss of classes needs it, and the discriminator has none")
    return value


def _logits(output: DiscriminatorOutput) -> Array:
    return _given(output.class_logits, "class_logits")


def _twin(output: DiscriminatorOutput) -> Array:
    return _given(output.twin_logits, "twin_logits")


def _embedded(output: DiscriminatorOutput) -> tuple[Array, Array]:
    return _given(output.embedding, "embedding"), _given(output.proxy, "proxy")


auxiliary = ClassLoss(
    d=lambda real, fake, label: cross_entropy(_logits(real), label) + cross_entropy(_logits(fake), label),
    g=lambda fake, label: cross_entropy(_logits(fake), label),
)
"""AC-GAN: D names the class of reals and of fakes. class_logits are [B, K]."""

discriminative = ClassLoss(
    d=lambda real, fake, label: adc_d(_logits(real), label, _logits(fake), label),
    g=lambda fake, label: adc_g(_logits(fake), label),
)
"""ADC-GAN: D names the class and whether it is real. class_logits are [B, 2K]: 2y for a real of class y, 2y + 1 for a fake."""

twin = ClassLoss(
    d=lambda real, fake, label: cross_entropy(_logits(real), label) + cross_entropy(_twin(fake), label),
    g=lambda fake, label: tac_g(_logits(fake), _twin(fake), label),
)
"""TAC-GAN: one classifier for reals and a twin for fakes, [B, K] each."""


def _fake_column(output: DiscriminatorOutput, label: Array) -> Array:
    return jnp.full_like(label, _logits(output).shape[-1] - 1)


multi_hinge = ClassLoss(
    d=lambda real, fake, label: (
        gan_conditional.multi_hinge(_logits(real), label)
        + gan_conditional.multi_hinge(_logits(fake), _fake_column(fake, label))
    ),
    g=lambda fake, label: gan_conditional.multi_hinge(_logits(fake), label),
)
"""MHingeGAN (Kavalerov et al. 2019, arXiv:1912.04216): Crammer and Singer's hinge. class_logits are [B, K + 1], the last column
for fakes of any class."""


def _by_embedding(term: Callable[..., Array], temperature: float) -> ClassLoss:
    def of(output: DiscriminatorOutput, label: Array) -> Array:
        return term(*_embedded(output), label, temperature)

    return ClassLoss(d=lambda real, fake, label: of(real, label), g=of)


contrastive = _by_embedding(contrastive_2c, 1.0)
"""ContraGAN's 2C loss of embeddings [B, E] and proxies of the classes [B, E]: of reals for D, of fakes for G."""

data_to_data = _by_embedding(d2d_ce, 0.5)
"""ReACGAN's D2D-CE, of the same."""
