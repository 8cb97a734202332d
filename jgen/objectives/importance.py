"""Timesteps drawn by how large their losses have been (Nichol & Dhariwal 2021, arXiv:2102.09672, section 3.3).

p_t is proportional to the root mean square of the last losses of t, and a loss drawn counts 1 / (T p_t), so that the mean is
that of the bound with less variance. Until every t has a full history all are drawn alike. The state lives in `extra`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jgen.types import Array, Key


class History(NamedTuple):
    """The last losses of every step of a chain."""

    losses: Array
    """[T, kept], oldest first."""
    count: Array
    """int32 [T]: how many of them are there yet."""


def new_history(steps: int, kept: int = 10) -> History:
    """Empty, of a chain of so many steps."""
    return History(jnp.zeros((steps, kept)), jnp.zeros(steps, jnp.int32))


def probabilities(history: History, uniform: float = 0.001) -> Array:
    """p [T]; the share `uniform` of it is spread evenly."""
    size = len(history.count)
    norms = jnp.sqrt(jnp.mean(jnp.square(history.losses), -1))
    weights = norms / jnp.maximum(jnp.sum(norms), 1e-30) * (1 - uniform) + uniform / size
    full = jnp.all(history.count == history.losses.shape[1])
    return jnp.where(full, weights / jnp.sum(weights), 1 / size)


def draw(history: History, key: Key, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """(t int32, what its loss counts), both of `shape`."""
    p = probabilities(history)
    t = jax.random.categorical(key, jnp.log(p), shape=shape)
    return t, 1 / (len(p) * p[t])


def update(history: History, t: Array, losses: Array) -> History:
    """Notes the losses [B] of the steps t [B], one after the other, since a step may come more than once."""
    kept = history.losses.shape[1]

    def note(history: History, pair: tuple[Array, Array]) -> tuple[History, None]:
        t, loss = pair
        row, count = history.losses[t], history.count[t]
        full = jnp.append(row[1:], loss)
        row = jnp.where(count == kept, full, row.at[jnp.minimum(count, kept - 1)].set(loss))
        return History(history.losses.at[t].set(row), history.count.at[t].set(jnp.minimum(count + 1, kept))), None

    return lax.scan(note, history, (t, losses))[0]
