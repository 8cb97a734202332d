"""RePaint (Lugmayr et al. 2022, arXiv:2201.09865): inpainting with any unconditional model of a discrete-time chain.

Known pixels are put in at every step, noised as they would be there. So that the others agree with them, the walk goes
forward again every `jump` steps, and back, several times (section 4.2).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax

from jgen.errors import UserError
from jgen.reverse import Variance
from jgen.samplers.ancestral import ancestral_step
from jgen.samplers.common import check_finite, check_keys, noise, predicted, shorten
from jgen.schedules import Schedule
from jgen.types import Array, Key, Predict


def levels(steps: int, jump: int = 10, resamplings: int = 10) -> np.ndarray:
    """Noise levels that the walk visits, from `steps` (noise) to 0 (images), a step up or down at a time.

    It goes up again from levels 1, 1 + jump, 1 + 2 jump, ..., as the authors' code does. Raises UserError unless all are at
    least 1.

    >>> levels(4, 2, 2).tolist()
    [4, 3, 2, 1, 2, 3, 2, 1, 0]
    """
    if min(steps, jump, resamplings) < 1:
        raise UserError(f"steps={steps}, jump={jump}, resamplings={resamplings}: must be at least 1")
    path = [steps]
    for level in range(steps - 1, -1, -1):
        path.append(level)
        if level and (level - 1) % jump == 0 and level + jump <= steps:
            for _ in range(resamplings - 1):
                path += [*range(level + 1, level + jump + 1), *range(level + jump - 1, level - 1, -1)]
    return np.array(path)


def repaint(
    predict: Predict,
    schedule: Schedule,
    x: Array,
    known: Array,
    mask: Array,
    keys: Key,
    *,
    timesteps: int | None = None,
    jump: int = 10,
    resamplings: int = 10,
    variance: Variance = "small",
) -> Array:
    """Images [B, H, W, C] from noise x that are `known` [B or 1, H, W, C] where mask (bool [B or 1, H, W, 1]) says so.

    timesteps: as of `ancestral`. Calls of the network: about timesteps * resamplings. resamplings=1 is plain replacement.
    Raises UserError for keys, known images and masks that do not fit x.
    """
    check_keys(keys, x)
    fits = (
        len(shape) == x.ndim and all(m in (1, n) for m, n in zip(shape, x.shape)) for shape in map(jnp.shape, (known, mask))
    )
    if not all(fits):
        shapes = f"known {list(jnp.shape(known))}, mask {list(jnp.shape(mask))}"
        raise UserError(f"{shapes} for x of {list(x.shape)}: must be [B or 1, H, W, C] and [B or 1, H, W, 1]")
    chain = shorten(schedule, timesteps)
    if len(chain) == 1:
        raise UserError("timesteps=1: repainting needs at least 2 steps")
    path = levels(len(chain), jump, resamplings)
    alpha_bar = jnp.asarray(np.append(1.0, chain.alpha_bar), jnp.float32)  # by level
    betas, times = jnp.asarray(chain.betas, jnp.float32), jnp.asarray(chain.timesteps, jnp.int32)

    def back(x: Array, level: Array, z: Array, fresh: Array) -> Array:
        prediction = predicted(predict, x, times[level - 1])
        unknown = ancestral_step(x, prediction, chain, level - 1, z, variance)
        share = alpha_bar[level - 1]
        return jnp.where(mask, jnp.sqrt(share) * known + jnp.sqrt(1 - share) * fresh, unknown)

    def forward(x: Array, level: Array, z: Array, fresh: Array) -> Array:
        return jnp.sqrt(1 - betas[level]) * x + jnp.sqrt(betas[level]) * z

    def body(x: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        i, level, up = step
        z, fresh = (noise(keys, x.shape[1:], 2 * i + j) for j in (0, 1))
        x = lax.cond(up, forward, back, x, level, z, fresh).astype(x.dtype)
        check_finite(x, "image", i)
        return x, None

    rows = (jnp.arange(len(path) - 1), jnp.asarray(path[:-1], jnp.int32), jnp.asarray(path[1:] > path[:-1]))
    return lax.scan(body, x, rows)[0]
