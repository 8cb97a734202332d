"""Pivotal tuning (Roich et al. 2021, arXiv:2106.05744): a generator's weights are tuned until its image of a style is a target.

The style, the pivot, comes from an inversion and stays as it is. A locality term can hold the images of styles around it.
Constants and details are those of the authors' code. Synthesis and distance are functions, so any style-based generator works.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen.config import check
from jgen.config.ranges import Count, NonNegative, Positive
from jgen.types import Array, Key, Params, PyTree

Synthesis = Callable[[PyTree, Array], Array]
"""(weights, ws [B, num_ws, D]) -> images [B, H, W, C] in [-1, 1]."""
Distance = Callable[[Array, Array], Array]
"""Two images [1, H, W, C] -> how unlike they look, a scalar, as LPIPS says it."""


@dataclasses.dataclass(frozen=True)
class PivotalOptions:
    """The authors' settings."""

    learning_rate: Positive = 3e-4
    max_steps: Count = 350
    threshold: NonNegative = 0.06
    """Perceptual distance at which tuning stops; the authors' is of LPIPS with AlexNet."""
    l2_weight: NonNegative = 1.0
    perceptual_weight: NonNegative = 1.0
    locality: bool = False
    """Hold the images of other styles."""
    locality_every: Count = 1
    """Updates between two uses of the term."""
    locality_alpha: Positive = 30.0
    """Distance of those styles from the pivot."""
    locality_l2_weight: NonNegative = 0.1
    locality_perceptual_weight: NonNegative = 0.1


class Tuning(NamedTuple):
    """Weights on the way, and Adam's state."""

    params: PyTree
    adam: PyTree
    updates: Array
    """int32; the locality term is used where this is a multiple of its interval."""


class TuningFacts(NamedTuple):
    """Numbers of one step, of the weights that it began from."""

    l2: Array
    perceptual: Array
    locality: Array
    """The weighted term, 0 where it is not used."""
    loss: Array
    used: Array
    """Whether the locality term was."""
    stopped: Array
    """Whether the image was near enough, so that nothing was updated."""
    image: Array
    grad: PyTree


def around(pivot: Array, ws: Array, alpha: float) -> Array:
    """The points at distance alpha from the pivot [num_ws, D], all rows together, towards each of ws [N, num_ws, D]."""
    way = ws - pivot[None]
    return pivot[None] + alpha * way / jnp.sqrt(jnp.sum(jnp.square(way), (1, 2), keepdims=True))


def locality_term(
    synthesize: Synthesis, distance: Distance, original: PyTree, params: PyTree, ws: Array, options: PivotalOptions
) -> Array:
    """How far images of ws [N, num_ws, D] have moved from those of the original weights: a mean over them, weighted."""

    def one(w: Array) -> Array:
        old, new = jax.lax.stop_gradient(synthesize(original, w[None])), synthesize(params, w[None])
        l2 = jnp.mean(jnp.square(old - new))
        return options.locality_l2_weight * l2 + options.locality_perceptual_weight * distance(new, old)

    return jnp.mean(jax.vmap(one)(ws))


def pivotal_start(params: PyTree, options: PivotalOptions, updates: int = 0) -> Tuning:
    """The first point; updates: how many were made before, for images before this one (as the authors' loop counts them)."""
    return Tuning(params, optax.adam(options.learning_rate).init(params), jnp.int32(updates))


def pivotal_step(
    synthesize: Synthesis, held: Synthesis, distance: Distance, original: PyTree, target: Array, pivot: Array,
    options: PivotalOptions, state: Tuning, ws: Array,
) -> tuple[Tuning, TuningFacts]:  # fmt: skip
    """One step for a target [1, H, W, C] and a pivot [num_ws, D].

    held: the synthesis of the locality term, which the authors let run without noise. ws: styles [N, num_ws, D] of the original
    generator that it goes towards (truncated by 0.5, one, in the authors' code).
    """
    used = options.locality & (state.updates % options.locality_every == 0)

    def loss(params: PyTree) -> tuple[Array, tuple[Array, Array, Array, Array]]:
        image = synthesize(params, pivot[None])
        l2, perceptual = jnp.mean(jnp.square(image - target)), distance(image, target)
        points = around(pivot, ws, options.locality_alpha)
        term = lambda: locality_term(held, distance, original, params, points, options)  # noqa: E731
        locality = jax.lax.cond(used, term, lambda: jnp.zeros_like(l2)) if options.locality else jnp.zeros_like(l2)
        value = options.l2_weight * l2 + options.perceptual_weight * perceptual + locality
        return value, (l2, perceptual, locality, image)

    (value, (l2, perceptual, locality, image)), grad = jax.value_and_grad(loss, has_aux=True)(state.params)
    stopped = perceptual <= options.threshold
    updates, adam = optax.adam(options.learning_rate).update(grad, state.adam)
    moved = Tuning(optax.apply_updates(state.params, updates), adam, state.updates + 1)
    state = jax.tree.map(lambda new, old: jnp.where(stopped, old, new), moved, state)
    return state, TuningFacts(l2, perceptual, locality, value, jnp.asarray(used), stopped, image, grad)


def pivotal_tuning(
    synthesize: Synthesis, held: Synthesis, distance: Distance, styles: Callable[[Key], Array], params: Params, target: Array,
    pivot: Array, key: Key, options: PivotalOptions = PivotalOptions(),
) -> tuple[Params, Array, Array]:  # fmt: skip
    """(tuned weights, number of updates, last perceptual distance) for an image [H, W, C] in [-1, 1] and its style [num_ws, D].

    styles: a key -> ws [N, num_ws, D] for the locality term. One compiled loop, which ends where the threshold is reached.
    Raises UserError for options that can't be.
    """
    check(options)

    def run(params: Params, target: Array, pivot: Array, key: Key) -> tuple[Params, Array, Array]:
        def body(carry: tuple[Tuning, Array, Array]) -> tuple[Tuning, Array, Array]:
            state, _, _ = carry
            ws = styles(jax.random.fold_in(key, state.updates)) if options.locality else pivot[None]
            state, facts = pivotal_step(synthesize, held, distance, params, target[None], pivot, options, state, ws)
            return state, facts.stopped, facts.perceptual

        def going(carry: tuple[Tuning, Array, Array]) -> Array:
            return ~carry[1] & (carry[0].updates < options.max_steps)

        start = pivotal_start(params, options), jnp.bool_(False), jnp.zeros((), target.dtype)
        state, _, perceptual = jax.lax.while_loop(going, body, start)
        return state.params, state.updates, perceptual

    return jax.jit(run)(params, target, pivot, key)
