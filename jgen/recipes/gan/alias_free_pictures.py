"""Pictures of alias-free generators: mixing, truncation, ways between styles, images moved and turned."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config import StyleSampling
from jgen.edit import latents, styles
from jgen.metrics.equivariance import rotation_matrix
from jgen.recipes.gan.alias_free import AliasFreeModel
from jgen.train.stage import Picture
from jgen.types import Array, Batch, Extra, Key, Params

STEPS = 8
"""Images of a way, and ways of a picture: a sheet of images is as wide as it is high."""


def alias_free_pictures(model: AliasFreeModel, options: StyleSampling) -> dict[str, Picture]:
    """Pictures by name: mixing_*, truncation, interpolation, translation, rotation."""

    def some(params: Params, extra: Extra, key: Key, num: int, **changes: Any) -> Array:
        return model.styles(params, extra, jax.random.split(key, num), replace(options, **changes))

    def mixing(rows: tuple[int, int]) -> Picture:
        def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
            ws = some(params, extra, key, 14)
            return styles.mixing_grid(lambda ws: model.images(params, extra, ws), ws[:7], ws[7:], rows)

        return picture

    def truncation(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        ws = some(params, extra, key, 7, psi=1.0)
        return styles.truncation_sweep(lambda ws: model.images(params, extra, ws), ws, extra["w_avg"], jnp.linspace(-1, 1, 7))

    def lines(params: Params, extra: Extra, key: Key, rows: int, steps: int) -> Array:
        """ws [rows, steps, num_ws, D] on lines between two styles."""
        ends = some(params, extra, key, 2 * rows).reshape(rows, 2, -1)
        line = jax.vmap(lambda pair: latents.lerp(pair[0], pair[1], jnp.linspace(0, 1, steps)))(ends)
        return line.reshape(rows, steps, model.g.num_ws, -1)

    def interpolation(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        ws = lines(params, extra, key, STEPS, STEPS)
        return model.images(params, extra, ws.reshape(-1, *ws.shape[2:]))

    def swept(transform: Callable[[Array], Array]) -> Picture:
        """A row an image, under transforms of -1 .. 1."""

        def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
            ws = jnp.repeat(some(params, extra, key, STEPS), STEPS, 0)
            by = jnp.tile(jnp.linspace(-1, 1, STEPS), STEPS)
            return model.images(params, extra, ws, jax.vmap(transform)(by))

        return picture

    groups = styles.ranges(model.g.num_ws)
    return {
        **{f"mixing_{name}": mixing(rows) for name, rows in groups.items()},
        "truncation": truncation,
        "interpolation": interpolation,
        "translation": swept(lambda by: jnp.eye(3).at[0, 2].set(-by / 4)),
        "rotation": swept(lambda by: rotation_matrix(-by * jnp.pi / 2)),
    }
