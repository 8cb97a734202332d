"""In-domain inversion (Zhu et al. 2020, arXiv:2004.00049), and TediGAN's by a text (Xia et al. 2021, arXiv:2012.03308).

The code that an encoder gives is moved until its image is near the target, and held where the encoder, shown that image, gives
it again. Constants and details are those of the TediGAN authors' code. Networks are functions, so any generator works.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen.config import check
from jgen.config.ranges import Count, NonNegative, Positive
from jgen.types import Array, PyTree

Network = Callable[[Array], Array]
"""Synthesis: codes [1, num_ws, D] -> images [1, H, W, C] in [-1, 1]; an encoder the other way; features: images -> any."""
TextLoss = Callable[[Array], Array]
"""Images [1, H, W, C] -> how far they are from a text, a scalar."""


@dataclasses.dataclass(frozen=True)
class InDomainOptions:
    """The authors' settings. Every term is a mean over its elements."""

    num_steps: Count = 200
    learning_rate: Positive = 0.01
    pixel_weight: NonNegative = 1.0
    feature_weight: NonNegative = 5e-5
    encoder_weight: NonNegative = 2.0
    text_weight: NonNegative = 2.0
    """Without a text it has no effect."""


class InDomainTerms(NamedTuple):
    """Terms of the loss, before their weights."""

    pixel: Array
    feature: Array
    encoder: Array
    text: Array


def in_domain_terms(
    synthesize: Network, encode: Network, features: Network, target: Array, codes: Array, text: TextLoss | None = None
) -> InDomainTerms:
    """Distances of the image of codes [1, num_ws, D] from a target [1, H, W, C]: in pixels, features, codes; from a text."""
    image = synthesize(codes)
    return InDomainTerms(
        jnp.mean(jnp.square(target - image)),
        jnp.mean(jnp.square(features(target) - features(image))),
        jnp.mean(jnp.square(codes - encode(image))),
        text(image) if text else jnp.zeros(()),
    )


def total(terms: InDomainTerms, options: InDomainOptions) -> Array:
    """The weighted sum."""
    weights = options.pixel_weight, options.feature_weight, options.encoder_weight, options.text_weight
    return sum((w * term for w, term in zip(weights, terms)), jnp.zeros(()))


class Inversion(NamedTuple):
    """A point on the way, and Adam's state."""

    codes: Array
    """[1, num_ws, D]."""
    adam: PyTree


def in_domain_start(codes: Array, options: InDomainOptions) -> Inversion:
    """The first point: the encoder's codes of the target."""
    return Inversion(codes, optax.adam(options.learning_rate).init(codes))


def in_domain_step(
    synthesize: Network, encode: Network, features: Network, target: Array, options: InDomainOptions, state: Inversion,
    text: TextLoss | None = None,
) -> tuple[Inversion, tuple[Array, Array, InDomainTerms]]:  # fmt: skip
    """(the next point, (loss, gradient, terms) at this one)."""

    def loss(codes: Array) -> tuple[Array, InDomainTerms]:
        terms = in_domain_terms(synthesize, encode, features, target, codes, text)
        return total(terms, options), terms

    (value, terms), grad = jax.value_and_grad(loss, has_aux=True)(state.codes)
    updates, adam = optax.adam(options.learning_rate).update(grad, state.adam)
    return Inversion(jnp.asarray(optax.apply_updates(state.codes, updates)), adam), (value, grad, terms)


def in_domain_inversion(
    synthesize: Network, encode: Network, features: Network, targets: Array, options: InDomainOptions = InDomainOptions(),
    text: TextLoss | None = None,
) -> tuple[Array, Array]:  # fmt: skip
    """(codes [B, num_ws, D], losses [B, steps]) of images [B, H, W, C] in [-1, 1], each independent of the others.

    One compiled scan. Raises UserError for options that can't be.
    """
    check(options)

    def one(target: Array) -> tuple[Array, Array]:
        def body(state: Inversion, _: Any) -> tuple[Inversion, Array]:
            state, (value, _, _) = in_domain_step(synthesize, encode, features, target[None], options, state, text)
            return state, value

        start = in_domain_start(encode(target[None]), options)
        last, losses = jax.lax.scan(body, start, length=options.num_steps)
        return last.codes[0], losses

    return jax.jit(jax.vmap(one))(targets)
