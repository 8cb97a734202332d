"""Styles of a generator: mixing, truncation, and the detail that noise adds (Karras et al. 2019, 2020).

Functions take the synthesis (ws [B, num_ws, D] -> images) as a function, so they serve every StyleGAN.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from jgen.errors import UserError
from jgen.models.gan.stylegan2 import truncate
from jgen.types import Array, Key

Synthesis = Callable[[Array], Array]
"""ws [B, num_ws, D] -> images [B, H, W, C]."""


def ranges(num_ws: int) -> dict[str, tuple[int, int]]:
    """{coarse, middle, fine}: (first row, end) of ws. The paper's thirds: resolutions to 8, to 32, and above.

    A network with few rows has them split as evenly as can be.
    """
    if num_ws < 3:
        raise UserError(f"num_ws={num_ws}: coarse, middle and fine need at least 3 rows")
    if num_ws > 10:
        return {"coarse": (0, 4), "middle": (4, 8), "fine": (8, num_ws)}
    cuts = [round(num_ws * i / 3) for i in range(4)]
    return {name: (cuts[i], cuts[i + 1]) for i, name in enumerate(("coarse", "middle", "fine"))}


def swapped(ws: Array, source: Array, rows: tuple[int, int]) -> Array:
    """ws [..., num_ws, D] with rows[0] to rows[1] - 1 taken from `source`. Raises UserError for rows that do not exist."""
    if not 0 <= rows[0] <= ws.shape[-2] >= rows[1]:
        raise UserError(f"rows={rows}: must be from 0 up to {ws.shape[-2]}, the number of rows")
    index = jnp.arange(ws.shape[-2])
    chosen = (index >= rows[0]) & (index < rows[1])
    return jnp.where(chosen[:, None].reshape(*[1] * (ws.ndim - 2), -1, 1), source, ws)


def mixing_grid(synthesis: Synthesis, of_columns: Array, of_rows: Array, rows: tuple[int, int]) -> Array:
    """Images [(R + 1) (C + 1), H, W, ch], row by row: a header of the sources, then at (r, c) column c's styles with `rows`
    taken from row r's. of_columns [C, num_ws, D], of_rows [R, num_ws, D]. The corner is black."""
    mixed = jax.vmap(lambda w: swapped(of_columns, w[None], rows))(of_rows)
    top, side = synthesis(of_columns), synthesis(of_rows)
    body = synthesis(mixed.reshape(-1, *of_columns.shape[1:])).reshape(len(of_rows), len(of_columns), *top.shape[1:])
    header = jnp.concatenate([jnp.full_like(top[:1], -1.0), top])
    return jnp.concatenate([header[None], jnp.concatenate([side[:, None], body], 1)]).reshape(-1, *top.shape[1:])


def truncation_sweep(synthesis: Synthesis, ws: Array, w_avg: Array, psis: Array) -> Array:
    """Images [B * len(psis), ...]: each of ws [B, num_ws, D] at every psi, a row an image; psi 0 is the mean image."""
    moved = jax.vmap(lambda psi: truncate(ws, w_avg, psi), out_axes=1)(psis)
    return synthesis(moved.reshape(-1, *ws.shape[1:]))


def noise_groups(sides: Mapping[str, int]) -> dict[str, set[str]]:
    """Which layers have noise in each picture of the paper's figure 5: all, none, the finer half, the coarser half."""
    names = sorted(sides, key=lambda name: sides[name])
    half = len(names) // 2
    return {"all": set(names), "none": set(), "fine": set(names[half:]), "coarse": set(names[:half])}


def noise_deviation(
    synthesis: Callable[[Array, Mapping[str, Array]], Array],
    ws: Array,
    draw: Callable[[Key], Mapping[str, Array]],
    keys: Key,
    layers: set[str],
) -> Array:
    """The standard deviation [B, H, W, C] of every pixel over draws of the noise of some layers, the others without.

    synthesis: (ws, noise) -> images; draw: keys [B] -> planes of every layer; keys [draws].
    """

    def one(carry: tuple[Array, Array], key: Key) -> tuple[tuple[Array, Array], None]:
        noise = {k: v for k, v in draw(jax.random.split(key, len(ws))).items() if k in layers}
        change = synthesis(ws, noise) - still
        return (carry[0] + change, carry[1] + jnp.square(change)), None

    still = synthesis(ws, {})
    zero = jnp.zeros_like(still)
    (total, squares), _ = jax.lax.scan(one, (zero, zero), keys)
    mean = total / len(keys)
    return jnp.sqrt(jnp.maximum(squares / len(keys) - jnp.square(mean), 0.0))
