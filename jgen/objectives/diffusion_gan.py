"""Diffusion-GAN (Wang et al. 2022, arXiv:2206.02262): what a discriminator sees is diffused, by a number of steps that adapts.

An image y becomes sqrt(alpha_bar_t) y + sqrt(1 - alpha_bar_t) std eps, with t = 0 for the image itself. The betas are spread
again over the current number of steps T, so that the last level grows with T, and T grows while D is too sure of reals: while
the mean sign of its logits (r_d; the authors' code leaves out the paper's -1/2) is above a target. Times come from a pool of
64, half of them 0 (in Projected GAN's flavour, a share that shrinks), drawn again whenever T may move. As in the authors'
code.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jgen.arrays import shard_like
from jgen.errors import UserError, check_choice
from jgen.objectives.ada import adjust_p
from jgen.objectives.augmentation import Augmentation
from jgen.types import Array, Condition, Extra, Key

Schedule = Literal["linear", "quad", "const", "jsd", "sigmoid", "cosine", "continuous_t"]
Distribution = Literal["priority", "uniform"]
POOL = 64
CLEAN = 32
"""Times of the pool that are 0."""


def _cosine(i: Array, steps: Array) -> Array:
    level = lambda j: jnp.cos((j / steps + 0.008) / 1.008 * jnp.pi / 2) ** 2  # noqa: E731
    return jnp.clip(1 - level(i + 1) / level(i), 0, 0.999)


def _continuous(i: Array, steps: Array) -> Array:
    return 1 - jnp.exp(-0.1 / steps - 0.5 * 4.9 * (2 * i + 1) / steps**2)


SCHEDULES: dict[str, Callable[[Array, Array, float, float], Array]] = {
    "linear": lambda i, n, a, b: a + (b - a) * i / jnp.maximum(n - 1, 1),
    "quad": lambda i, n, a, b: (a**0.5 + (b**0.5 - a**0.5) * i / jnp.maximum(n - 1, 1)) ** 2,
    "const": lambda i, n, a, b: jnp.full_like(i, b),
    "jsd": lambda i, n, a, b: 1 / (n - i),
    "sigmoid": lambda i, n, a, b: jax.nn.sigmoid(12 * i / jnp.maximum(n - 1, 1) - 6) * (b - a) + a,
    "cosine": lambda i, n, a, b: _cosine(i, n),
    "continuous_t": lambda i, n, a, b: _continuous(i, n),
}
"""(indices from 0, number of steps, first beta, last beta) -> betas."""


class Process(NamedTuple):
    """A diffusion whose number of steps moves between two."""

    t_min: int = 10
    t_max: int = 1000
    schedule: Schedule = "linear"
    beta_start: float = 1e-4
    beta_end: float = 2e-2
    noise_std: float = 0.05
    """Deviation of the noise: images vary within 1, and so do levels of noise."""
    distribution: Distribution = "priority"
    """Chances of the times: in proportion to t - 1, or all alike."""


PROJECTED = Process(5, 500, beta_end=1e-2, noise_std=0.5)
"""That of feature maps, in Diffusion-GAN's flavour of Projected GAN."""


def checked(process: Process) -> Process:
    """The process. Raises UserError for numbers of steps or betas out of order, and names that are unknown."""
    if not 1 <= process.t_min <= process.t_max:
        raise UserError(f"t_min={process.t_min}, t_max={process.t_max}: must be at least 1, and in order")
    check_choice(SCHEDULES, schedule=process.schedule)
    if process.distribution not in ("priority", "uniform"):
        raise UserError(f"distribution={process.distribution}: must be priority or uniform")
    if not 0 < process.beta_start <= process.beta_end < 1:
        raise UserError(f"beta_start={process.beta_start}, beta_end={process.beta_end}: must be within 0..1, and in order")
    return process


def betas(process: Process, steps: Array | int) -> Array:
    """[t_max]: the betas of so many steps, then zeros."""
    i = jnp.arange(process.t_max, dtype=float)
    found = SCHEDULES[process.schedule](i, jnp.asarray(steps, i.dtype), process.beta_start, process.beta_end)
    return jnp.where(i < steps, found, 0)


def coefficients(betas: Array) -> tuple[Array, Array]:
    """(sqrt(alpha_bar), sqrt(1 - alpha_bar)) of betas [T], from time 0 on: [T + 1] each."""
    bar = jnp.concatenate([jnp.ones(1, betas.dtype), jnp.cumprod(1 - betas)])
    return jnp.sqrt(bar), jnp.sqrt(1 - bar)


def steps_of(process: Process, p: Array | float) -> Array:
    """int32 []: the number of steps at strength p in 0..1."""
    steps = process.t_min + jnp.round(jnp.asarray(p) * (process.t_max - process.t_min))
    return jnp.clip(steps, process.t_min, process.t_max).astype(jnp.int32)


def time_chances(process: Process, steps: Array | int) -> Array:
    """[t_max]: the chances of the times 1, 2, ...; 0 beyond `steps`."""
    t = jnp.arange(process.t_max)
    weights = t if process.distribution == "priority" else jnp.ones_like(t)
    weights = jnp.where(t < steps, weights, 0).astype(float)
    weights = jnp.where(jnp.sum(weights) == 0, (t == 0).astype(weights.dtype), weights)  # of a single step
    return weights / jnp.sum(weights)


def pool_of(draws: Array, count: Array | int = POOL - CLEAN) -> Array:
    """int32 [64]: the first `count` of drawn times, then zeros."""
    draws = jnp.pad(draws, (0, POOL - len(draws))).astype(jnp.int32)
    return jnp.where(jnp.arange(POOL) < count, draws, 0)


def projected_count(p: Array | float) -> Array:
    """Times of the pool that are not 0 in Projected GAN's flavour: a share p, at most 48."""
    return jnp.minimum(jnp.round(jnp.asarray(p) * POOL), 48).astype(jnp.int32)


def diffuse(x: Array, t: Array, noise: Array, levels: tuple[Array, Array], noise_std: float) -> Array:
    """x [B, H, W, C] at times t, [B] or one a channel [B, C], with standard normal (or two-valued) noise."""
    shape = (len(x), 1, 1, -1)
    keep, add = (level[t].reshape(shape).astype(x.dtype) for level in levels)
    return keep * x + add * noise_std * noise


def draw_times(key: Key, pool: Array, shape: tuple[int, ...]) -> Array:
    """Times of a shape, each drawn from the pool."""
    return pool[jax.random.randint(key, shape, 0, POOL)]


def state_at(process: Process, p: Array | float, updates: Array | int, projected: bool = False) -> dict[str, Array]:
    """{"p", "T", "pool", "updates"} of extra["diffusion"] after so many moves of T; the pool's draws are those of the count."""
    steps = steps_of(process, p)
    key = jax.random.fold_in(jax.random.key(POOL), updates)
    draws = 1 + jax.random.categorical(key, jnp.log(time_chances(process, steps)), shape=(POOL,))
    count = projected_count(p) if projected else POOL - CLEAN
    p, updates = jnp.asarray(p, jnp.float32), jnp.asarray(updates, jnp.int32)
    return {"p": p, "T": steps, "pool": pool_of(draws, count), "updates": updates}


def diffusion(
    process: Process,
    *,
    target: float = 0.6,
    kimg: float = 100.0,
    interval: int = 4,
    projected: bool = False,
    first: Augmentation | None = None,
) -> Augmentation:
    """The augmentation of a discriminator: images are diffused, and condition.augment [B, 1] tells D the time as it is.

    p moves every `interval` batches by what takes it from 0 to 1 in kimg thousand images, until the mean sign of D's logits of
    reals is `target`. first: an augmentation before it. projected: images stay as they are; condition.noise_key [B, 2] says
    what noise `diffuse_features` puts on an image's features. Raises UserError as `checked` does, and for a kimg of 0 or less.
    """
    process, before = checked(process), first or Augmentation()
    if kimg <= 0:
        raise UserError(f"kimg={kimg}: must be above 0")

    def split(key: Key, images: Array, extra: Extra) -> tuple[Key, Key, Array]:
        first_key, time_key, noise_key = jax.random.split(key, 3)
        times = draw_times(time_key, extra["diffusion"]["pool"], images.shape[:1])
        return first_key, noise_key, shard_like(times, images)

    def augment(key: Key, images: Array, extra: Extra) -> Array:
        first_key, noise_key, t = split(key, images, extra)
        images = before.augment(first_key, images, extra)
        if projected:
            return images
        levels = coefficients(betas(process, extra["diffusion"]["T"]))
        noise = shard_like(jax.random.normal(noise_key, images.shape, images.dtype), images)
        return diffuse(images, t, noise, levels, process.noise_std)

    def condition(key: Key, images: Array, extra: Extra, condition: Condition) -> Condition:
        _, noise_key, t = split(key, images, extra)
        if projected:
            keys = jax.random.key_data(jax.random.split(noise_key, len(images)))
            return condition.replace(noise_key=shard_like(keys, images))
        return condition.replace(augment=t[:, None].astype(images.dtype))

    def adapt(extra: Extra, real: Array) -> Extra:
        extra, state = before.adapt(extra, real), extra["diffusion"]
        total, count = state["signs"] + jnp.mean(real), state["count"] + 1
        due = count == interval
        moved = adjust_p(state["p"], total / interval, batch=len(real), interval=interval, kimg=kimg, target=target)
        new = state_at(process, jnp.minimum(moved, 1), state["updates"] + 1, projected)
        new |= {"signs": jnp.zeros_like(total), "count": jnp.zeros_like(count)}
        kept = {**state, "signs": total, "count": count}
        return {**extra, "diffusion": jax.tree.map(lambda a, b: jnp.where(due, a, b), new, kept)}

    start = {**state_at(process, 0.0, 0, projected), "signs": jnp.zeros(()), "count": jnp.zeros((), jnp.int32)}
    return Augmentation(augment, adapt, {**before.state, "diffusion": start}, condition)


def diffuse_features(process: Process, features: list[Array], noise_key: Array, state: Any) -> list[Array]:
    """Feature maps [B, h, w, C] with noise, a time a channel, of the keys' data [B, 2] and extra["diffusion"]."""
    levels = coefficients(betas(process, state["T"]))

    def one(data: Array, maps: list[Array]) -> list[Array]:
        found = []
        for i, x in enumerate(maps):
            time_key, eps_key = jax.random.split(jax.random.fold_in(jax.random.wrap_key_data(data), i))
            t = draw_times(time_key, state["pool"], (1, x.shape[-1]))
            found.append(diffuse(x[None], t, jax.random.normal(eps_key, (1, *x.shape), x.dtype), levels, process.noise_std)[0])
        return found

    return jax.vmap(one)(noise_key, features)
