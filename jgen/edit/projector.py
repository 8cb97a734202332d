"""StyleGAN2's projector: the style and the noise maps whose image is nearest to a given one (Karras et al. 2020, section 5).

Constants and details are those of the authors' code, stylegan2-ada-pytorch's projector.py. The synthesis and the features are
functions, so any style-based generator works, with one style for all layers (W) or one for each (W+).
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from jgen.config import check
from jgen.config.ranges import Count, NonNegative, Positive
from jgen.errors import UserError
from jgen.types import Array, PyTree

NoiseMaps = Mapping[str, Array]
"""{layer: [side, side, 1]}."""
Synthesis = Callable[[Array, NoiseMaps], Array]
"""(ws [1, num_ws, D], noise {layer: [1, side, side, 1]}) -> image [1, H, W, C] in [-1, 1]."""
Features = Callable[[Array], Array]
"""Images [1, H, W, C] in [-1, 1] -> [1, F]; the distance of two images is the sum of squared differences."""
ADAM = optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-8)


@dataclasses.dataclass(frozen=True)
class ProjectorOptions:
    """The authors' settings, by their names."""

    num_steps: Count = 1000
    initial_learning_rate: Positive = 0.1
    initial_noise_factor: NonNegative = 0.05
    """Noise on the style at first, in standard deviations of W."""
    lr_rampdown_length: NonNegative = 0.25
    """Share of the steps in which the rate falls to 0, at the end."""
    lr_rampup_length: NonNegative = 0.05
    """Share of the steps in which the rate rises from 0."""
    noise_ramp_length: Positive = 0.75
    """Share of the steps in which the noise on the style falls to 0."""
    regularize_noise_weight: NonNegative = 1e5


class Projection(NamedTuple):
    """A point on the way, and Adam's state."""

    w: Array
    """[1, D], or [num_ws, D] for W+."""
    noise: NoiseMaps
    adam: PyTree


class StepFacts(NamedTuple):
    """Numbers of one step, of the point that it began from."""

    distance: Array
    regulariser: Array
    loss: Array
    grad_w: Array
    grad_noise: NoiseMaps
    image: Array


def style_statistics(ws: Array) -> tuple[Array, Array]:
    """(mean [1, D], spread) of styles [N, D]; the spread is one number, the root mean square distance from the mean."""
    mean = jnp.mean(ws, 0, keepdims=True)
    return mean, jnp.sqrt(jnp.sum(jnp.square(ws - mean)) / len(ws))


def learning_rate(options: ProjectorOptions, t: Array) -> Array:
    """The rate at a share t of the steps."""
    down = jnp.minimum(1.0, (1.0 - t) / options.lr_rampdown_length) if options.lr_rampdown_length else jnp.ones_like(t)
    up = jnp.minimum(1.0, t / options.lr_rampup_length) if options.lr_rampup_length else jnp.ones_like(t)
    return options.initial_learning_rate * (0.5 - 0.5 * jnp.cos(jnp.pi * down)) * up


def style_noise(options: ProjectorOptions, w_std: Array, t: Array) -> Array:
    """The standard deviation of the noise on the style at a share t of the steps."""
    return w_std * options.initial_noise_factor * jnp.maximum(0.0, 1.0 - t / options.noise_ramp_length) ** 2


def noise_regulariser(plane: Array) -> Array:
    """How alike neighbours in a noise map [side, side, 1] are, at its own and all coarser scales down to 8.

    It is near 0 for white noise.
    """
    total = jnp.zeros(())
    while True:
        total += sum(jnp.mean(plane * jnp.roll(plane, 1, axis)) ** 2 for axis in (0, 1))
        if plane.shape[0] <= 8:
            return total
        half = plane.shape[0] // 2, plane.shape[1] // 2
        plane = plane[: 2 * half[0], : 2 * half[1]].reshape(half[0], 2, half[1], 2, -1).mean((1, 3))


def normalised(plane: Array) -> Array:
    """A noise map of mean 0 and mean square 1."""
    plane = plane - jnp.mean(plane)
    return plane * jax.lax.rsqrt(jnp.mean(jnp.square(plane)))


def projector_start(w: Array, noise: NoiseMaps) -> Projection:
    """The first point: w [1, D] (or [num_ws, D]) and noise maps that are freshly drawn."""
    return Projection(w, dict(noise), ADAM.init((w, dict(noise))))


def projector_step(
    synthesis: Synthesis, features: Features, target: Array, num_ws: int, w_std: Array, options: ProjectorOptions,
    state: Projection, step: Array, draw: Array,
) -> tuple[Projection, StepFacts]:  # fmt: skip
    """One step: target is the features [1, F] of the image that is sought, draw a unit normal of w's shape."""
    t = step / options.num_steps

    def loss(values: tuple[Array, NoiseMaps]) -> tuple[Array, tuple[Array, Array, Array]]:
        w, noise = values
        noisy = w + draw * style_noise(options, w_std, t)
        image = synthesis(jnp.broadcast_to(noisy, (num_ws, w.shape[-1]))[None], {k: v[None] for k, v in noise.items()})
        distance = jnp.sum(jnp.square(target - features(image)))
        rough = sum((noise_regulariser(plane) for plane in noise.values()), jnp.zeros(()))
        return distance + options.regularize_noise_weight * rough, (distance, rough, image)

    values = (state.w, dict(state.noise))
    (total, (distance, rough, image)), grads = jax.value_and_grad(loss, has_aux=True)(values)
    updates, adam = ADAM.update(grads, state.adam)
    rate = learning_rate(options, t)
    w, noise = jax.tree.map(lambda value, update: value - rate * update, values, updates)
    noise = {name: normalised(plane) for name, plane in noise.items()}  # behind Adam's back, as the authors do
    return Projection(w, noise, adam), StepFacts(distance, rough, total, grads[0], grads[1], image)


def project(
    synthesis: Synthesis, features: Features, targets: Array, start: Array, w_std: Array, noise: NoiseMaps, keys: Array,
    num_ws: int, options: ProjectorOptions = ProjectorOptions(),
) -> tuple[Array, NoiseMaps, Array]:  # fmt: skip
    """(styles [B, num_ws, D], noise maps {layer: [B, side, side, 1]}, distances [B, steps]) of images [B, H, W, C] in [-1, 1].

    start: the mean style [1, D], or [num_ws, D] to seek one for each layer. noise: maps {layer: [B, side, side, 1]} to begin
    from; keys: one an image, so that image i depends on itself alone. One compiled scan. Raises UserError for a start of other
    rows, and for options that can't be.
    """
    if start.shape[0] not in (1, num_ws):
        raise UserError(f"start: has {start.shape[0]} rows; must be 1, or {num_ws} for a style of each layer")
    check(options)

    def one(target: Array, maps: NoiseMaps, key: Array) -> tuple[Array, NoiseMaps, Array]:
        wanted = features(target[None])

        def body(state: Projection, step: Array) -> tuple[Projection, Array]:
            draw = jax.random.normal(jax.random.fold_in(key, step), start.shape)
            state, facts = projector_step(synthesis, features, wanted, num_ws, w_std, options, state, step, draw)
            return state, facts.distance

        last, distances = jax.lax.scan(body, projector_start(start, maps), jnp.arange(options.num_steps))
        return jnp.broadcast_to(last.w, (num_ws, start.shape[-1])), last.noise, distances

    return jax.jit(jax.vmap(one))(targets, dict(noise), keys)
