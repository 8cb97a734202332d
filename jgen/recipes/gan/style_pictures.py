"""Pictures of what styles control: mixing, truncation, noise by layer, ways between two images (Karras et al. 2019, 2020)."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config import StyleSampling
from jgen.edit import latents, noise, styles
from jgen.recipes.gan.style import StyleModel
from jgen.samplers.common import noise as normal
from jgen.train.stage import Picture
from jgen.types import Array, Batch, Extra, Key, Params


def style_pictures(model: StyleModel, options: StyleSampling) -> dict[str, Picture]:
    """Pictures by name: mixing_*, truncation, noise, interpolation."""
    sides = model.networks.noise_sides

    def some(params: Params, extra: Extra, key: Key, num: int, **changes: Any) -> Array:
        return model.styles(params, extra, jax.random.split(key, num), replace(options, **changes))

    def mixing(rows: tuple[int, int]) -> Picture:
        def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
            ws = some(params, extra, key, 14)
            return styles.mixing_grid(lambda ws: model.synthesized(params, extra, ws, {}), ws[:7], ws[7:], rows)

        return picture

    def truncation(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        ws = some(params, extra, key, 7, psi=1.0)
        show = lambda ws: model.synthesized(params, extra, ws, {})  # noqa: E731
        return styles.truncation_sweep(show, ws, extra["w_avg"], jnp.linspace(-1, 1, 7))

    def noise_layers(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Rows: noise in all layers, in none, in the finer, in the coarser, and the deviation that all of it makes, times 4."""
        ws, keys = some(params, extra, key, 5), jax.random.split(jax.random.fold_in(key, 1), 5)
        kind = noise.gaussian if options.noise == "none" else getattr(noise, options.noise)
        drawn = noise.planes(keys, sides, kind)
        rows = [
            model.synthesized(params, extra, ws, {k: v for k, v in drawn.items() if k in layers})
            for layers in styles.noise_groups(sides).values()
        ]
        draw = lambda keys: noise.planes(keys, sides, kind)  # noqa: E731
        many = jax.random.split(jax.random.fold_in(key, 2), 20)
        show = lambda ws, planes: model.synthesized(params, extra, ws, planes)  # noqa: E731
        deviation = styles.noise_deviation(show, ws, draw, many, set(sides))
        return jnp.concatenate([*rows, jnp.clip(4 * deviation - 1, -1, 1)])

    def interpolation(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Lines between two styles in W, and arcs in Z, by turns."""
        t, rows = jnp.linspace(0, 1, 8), []
        for i in range(4):
            ends = jax.random.split(jax.random.fold_in(key, i), 2)
            a, b = model.styles(params, extra, ends, options)
            z = normal(ends, (model.networks.z_dim,))
            line = latents.lerp(a.reshape(-1), b.reshape(-1), t).reshape(8, *a.shape)
            arc = latents.slerp(z[0], z[1], t)
            same = jnp.broadcast_to(ends[:1], (8,))  # one key, so one label
            rows += [
                model.synthesized(params, extra, line, {}),
                model.synthesized(params, extra, model.styles(params, extra, same, options, arc), {}),
            ]
        return jnp.concatenate(rows)

    groups = styles.ranges(2 * len(set(sides.values())))
    return {
        **{f"mixing_{name}": mixing(rows) for name, rows in groups.items()},
        "truncation": truncation,
        "noise": noise_layers,
        "interpolation": interpolation,
    }
