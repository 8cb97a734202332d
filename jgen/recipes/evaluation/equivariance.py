"""The evaluation of how a generator's images follow shifts and turns of its input: EQ-T, EQ-T_frac and EQ-R in decibels."""

from collections.abc import Callable, Iterator

import jax

from jgen.metrics import equivariance as metric
from jgen.recipes.evaluation.observer import held_out, image_keys_like
from jgen.train.stage import Evaluate
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
