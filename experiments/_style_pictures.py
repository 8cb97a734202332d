"""Pictures of what styles control: mixing, truncation, noise by layer, ways between two images (Karras et al. 2019, 2020)."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from experiments._style import Shared
from jgen.edit import latents, noise, styles
from jgen.experiment import Picture
from jgen.samplers.common import noise as normal


def pictures(config: Shared, styled: Any, synthesized: Any, sides: dict[str, int]) -> dict[str, Picture]:
    """Pictures by name.

    styled(params, extra, keys, options, z=None) -> ws; synthesized(params, extra, ws, planes) -> images; sides of the planes.
    """

    def some(params, extra, key, num, **changes):
        return styled(params, extra, jax.random.split(key, num), replace(config.sampling, **changes))

    def mixing(rows):
        def picture(params, extra, key, batch):
            ws = some(params, extra, key, 14)
            return styles.mixing_grid(lambda ws: synthesized(params, extra, ws, {}), ws[:7], ws[7:], rows)

        return picture

    def truncation(params, extra, key, batch):
        ws = some(params, extra, key, 7, psi=1.0)
        return styles.truncation_sweep(
            lambda ws: synthesized(params, extra, ws, {}), ws, extra["w_avg"], jnp.linspace(-1, 1, 7)
        )

    def noise_layers(params, extra, key, batch):
        """Rows: noise in all layers, in none, in the finer, in the coarser, and the deviation that all of it makes, times 4."""
        ws, keys = some(params, extra, key, 5), jax.random.split(jax.random.fold_in(key, 1), 5)
        kind = noise.gaussian if config.sampling.noise == "none" else getattr(noise, config.sampling.noise)
        drawn = noise.planes(keys, sides, kind)
        rows = [
            synthesized(params, extra, ws, {k: v for k, v in drawn.items() if k in layers})
            for layers in styles.noise_groups(sides).values()
        ]
        draw = lambda keys: noise.planes(keys, sides, kind)  # noqa: E731
        many = jax.random.split(jax.random.fold_in(key, 2), 20)
        spread = styles.noise_deviation(lambda ws, n: synthesized(params, extra, ws, n), ws, draw, many, set(sides))
        return jnp.concatenate([*rows, jnp.clip(4 * spread - 1, -1, 1)])

    def ways(params, extra, key, batch):
        """Lines between two styles in W, and arcs in Z, by turns."""
        t, rows = jnp.linspace(0, 1, 8), []
        for i in range(4):
            ends = jax.random.split(jax.random.fold_in(key, i), 2)
            a, b = styled(params, extra, ends, config.sampling)
            line = latents.lerp(a.reshape(-1), b.reshape(-1), t).reshape(8, *a.shape)
            arc = latents.slerp(*normal(ends, (config.z_dim,)), t)
            same = jnp.broadcast_to(ends[:1], (8,))  # one key, so one label
            rows += [
                synthesized(params, extra, line, {}),
                synthesized(params, extra, styled(params, extra, same, config.sampling, arc), {}),
            ]
        return jnp.concatenate(rows)

    groups = styles.ranges(2 * len(set(sides.values())))
    return {
        **{f"mixing_{name}": mixing(rows) for name, rows in groups.items()},
        "truncation": truncation,
        "noise": noise_layers,
        "interpolation": ways,
    }
