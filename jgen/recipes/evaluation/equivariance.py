"""The evaluation of how a generator's images follow shifts and turns of its input: EQ-T, EQ-T_frac and EQ-R in decibels."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from jgen.errors import UserError
from jgen.metrics import equivariance as metric
from jgen.recipes.evaluation.observer import held_out, image_keys_like
from jgen.samplers import image_keys
from jgen.sharding import batch_sharding, replicated
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, Params

Transformed = Callable[[Params, Extra, Key, Array], Array]
"""(params, extra, one key an image, transform [3, 3] of the input) -> images as the network makes them."""

LEAST = 32
"""Side from which turned images have pixels whose surroundings are known."""


def equivariance(synthesize: Transformed) -> Evaluate:
    """The evaluation of as many latents as there are held-out images, in batches of one transform each.

    Images below 32 pixels have shifts alone: a turn's filter reaches across all of them.
    """

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, float]:
        run, sums, like = jax.jit(synthesize), [], held_out(batches, count)
        latent_key, draw_key = jax.random.split(key)
        for i, keys in enumerate(image_keys_like(latent_key, like)):
            made = lambda transform, keys=keys: run(params, extra, keys, transform)  # noqa: E731
            side = made(metric.rotation_matrix(0.0)).shape[1]
            sums.append(metric.squared_errors(made, metric.draw(jax.random.fold_in(draw_key, i)), turns=side >= LEAST))
        found = metric.decibels(sums)._asdict()
        return {f"{name}_db": value for name, value in found.items() if value is not None}

    return evaluate


FIELDS = {"eqt": "eq_t", "eqt_frac": "eq_t_frac", "eqr": "eq_r"}
"""{name of a metric: its field of `metric.Equivariance`}."""


def equivariance_of(
    stage: Stage, params: Params, extra: Extra, mesh: Mesh, names: Sequence[str], num: int, seed: int, options: Any, size: int
) -> dict[str, float]:
    """{name: decibels} of at least `num` latents, `size` of which share a transform of each kind.

    names: of `metric.NAMES`. Raises UserError for a generator whose input has no place, and for turns of images that are too
    small, below 32 pixels.
    """
    moved = stage.moved
    if moved is None:
        raise UserError(f"metrics={names[0]}: {stage.name} has no input that can be moved; StyleGANs have one")

    def run(params: Params, extra: Extra, start: Array, transform: Array) -> Array:
        keys = jax.lax.with_sharding_constraint(image_keys(seed, size, start), batch_sharding(mesh))
        return moved(params, extra, keys, options, transform)

    compiled, draw_key, sums = jax.jit(run, out_shardings=replicated(mesh)), jax.random.key(seed), []
    side = jax.eval_shape(run, params, extra, 0, metric.rotation_matrix(0.0)).shape[1]
    if "eqr" in names and side < LEAST:
        raise UserError(f"metrics=eqr: images of {side} pixels; turned ones must have {LEAST} and more")
    for start in range(0, num, size):
        draws = metric.draw(jax.random.fold_in(draw_key, start))
        made = lambda transform, start=start: compiled(params, extra, start, transform)  # noqa: E731
        sums.append(metric.squared_errors(made, draws, turns="eqr" in names))
    found = metric.decibels(sums)._asdict()
    return {name: found[FIELDS[name]] for name in names}
