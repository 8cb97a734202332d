"""Score matching and Langevin dynamics on two Gaussians in the plane (Song & Ermon 2019, section 3.2)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from matplotlib.figure import Figure

from jgen import samplers
from jgen.arrays import expand_dims_like
from jgen.objectives import score as objectives
from jgen.samplers.langevin import geometric
from jgen.types import Array, Key, PyTree, Score

WEIGHTS, PLACE, WINDOW = (0.2, 0.8), 5.0, 8.0
SIGMAS = (20.0, 0.3)
"""Noisiest and least level."""
LEVELS, STEPS_EACH, STEP_SIZE = 20, 100, 0.01


def exact_score(x: Array, sigma: Array | float = 0.0) -> Array:
    """The gradient [B, 2] of the log-density of the data with noise of level sigma (a number or [B]) added."""
    variance = 1 + jnp.broadcast_to(jnp.asarray(sigma), x.shape[:1]) ** 2
    gaps = jnp.array([[PLACE] * 2, [-PLACE] * 2])[None] - x[:, None]
    logits = jnp.log(jnp.array(WEIGHTS))[None] - 0.5 * jnp.sum(gaps**2, -1) / variance[:, None]
    return jnp.sum(jax.nn.softmax(logits)[..., None] * gaps, 1) / variance[:, None]


def draw(key: Key, num: int) -> Array:
    """Data [num, 2]."""
    which, noise = jax.random.split(key)
    sign = jnp.where(jax.random.bernoulli(which, WEIGHTS[0], (num, 1)), PLACE, -PLACE)
    return sign + jax.random.normal(noise, (num, 2))


def train(noisy: bool, steps: int, seed: int = 0) -> Score:
    """A score (x [B, 2], sigma [B]) learned by sliced score matching of clean data, or by denoising at many levels."""

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: Array, sigma: Array) -> Array:
            h = jnp.concatenate(
                [x / jnp.sqrt(25 + expand_dims_like(sigma, x) ** 2), jnp.log(expand_dims_like(sigma, x) + 1e-3)], -1
            )
            for _ in range(3):
                h = nn.silu(nn.Dense(128)(h))
            return nn.Dense(2)(h) / jnp.sqrt(1 + expand_dims_like(sigma, x) ** 2)

    net: Any = Net()
    levels = jnp.asarray(geometric(*SIGMAS, LEVELS), jnp.float32)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, steps))

    def loss(params: PyTree, key: Key) -> Array:
        data_key, level_key, draw_key = jax.random.split(key, 3)
        x = draw(data_key, 512)
        if noisy:
            sigma, eps = jax.random.choice(level_key, levels, (512,)), jax.random.normal(draw_key, x.shape)
            return jnp.mean(objectives.denoising(lambda x, s: net.apply(params, x, s), x, sigma, eps, 2.0))
        field = lambda x: net.apply(params, x, jnp.zeros(len(x)))  # noqa: E731
        return jnp.mean(objectives.sliced(field, x, objectives.projections(draw_key, x.shape)))

    @jax.jit
    def run(key: Key) -> PyTree:
        params = net.init(key, jnp.zeros((1, 2)), jnp.ones(1))

        def step(carry: tuple[PyTree, PyTree], key: Key) -> tuple[tuple[PyTree, PyTree], None]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss)(params, key), state)
            return (optax.apply_updates(params, updates), state), None

        (params, _), _ = jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(key, steps))
        return params

    params = run(jax.random.key(seed))
    return lambda x, sigma: net.apply(params, x, sigma)


def share(x: Array) -> float:
    """The share of samples [B, 2] nearer to (5, 5); it should be a fifth."""
    return float((x.sum(-1) > 0).mean())


def study(steps: int = 4000, num: int = 10_000) -> dict[str, Any]:
    """All that the picture shows: numbers, and under "samples", "grid" and "fields" the points and arrows."""
    plain, noisy = train(False, steps), train(True, steps)
    side = jnp.linspace(-WINDOW, WINDOW, 21)
    grid = jnp.stack(jnp.meshgrid(side, side), -1).reshape(-1, 2)
    near = jnp.minimum(*(jnp.linalg.norm(grid - s * PLACE, axis=-1) for s in (1, -1))) < 2.5
    still = jnp.zeros(len(grid))
    fields = {"exact": exact_score(grid), "learned without noise": plain(grid, still)}
    error = jnp.linalg.norm(fields["learned without noise"] - fields["exact"], axis=-1) / jnp.linalg.norm(
        fields["exact"], axis=-1
    )
    keys = samplers.image_keys(1, num)
    start = jax.random.uniform(jax.random.key(2), (num, 2), minval=-WINDOW, maxval=WINDOW)
    one: dict[str, Any] = dict(steps=LEVELS * STEPS_EACH, step_size=STEP_SIZE)
    many: dict[str, Any] = dict(steps_each=STEPS_EACH, step_size=STEP_SIZE, denoise=False)
    sigmas = geometric(*SIGMAS, LEVELS)
    found = {
        "data": draw(jax.random.key(3), num),
        "Langevin, exact score": samplers.unadjusted_langevin(exact_score, start, keys, **one),
        "Langevin, learned score": samplers.unadjusted_langevin(lambda x: plain(x, jnp.zeros(len(x))), start, keys, **one),
        "annealed, exact score": samplers.annealed_langevin(exact_score, start, sigmas, keys, **many),
        "annealed, learned score": samplers.annealed_langevin(noisy, start, sigmas, keys, **many),
    }
    noisy_error = [
        float(jnp.mean(jnp.linalg.norm(noisy(grid, s) - exact_score(grid, s), axis=-1)) * s[0])
        for s in (jnp.full(len(grid), level) for level in sigmas)
    ]
    return {
        "relative score error near the modes": float(jnp.median(error[near])),
        "relative score error elsewhere": float(jnp.median(error[~near])),
        "sigma times the noisy score's error, by level": noisy_error,
        "share at (5, 5), 0.2 in the data": {name: share(x) for name, x in found.items()},
        "samples": found,
        "grid": grid,
        "fields": fields,
    }


def figure(found: dict[str, Any]) -> Figure:
    """A matplotlib figure: both score fields, then the samples of each way."""
    shown, axes = plt.subplots(2, 4, figsize=(13, 6.6), sharex=True, sharey=True)
    panels = list(axes.flat)
    for panel, (name, field) in zip(panels, found["fields"].items()):
        panel.quiver(*np.asarray(found["grid"]).T, *np.asarray(field).T, angles="xy")
        panel.set_title(f"score, {name}")
    gap = np.linalg.norm(np.asarray(found["fields"]["learned without noise"] - found["fields"]["exact"]), axis=-1)
    panels[2].imshow(gap.reshape(21, 21), origin="lower", extent=(-WINDOW, WINDOW) * 2, cmap="magma")
    panels[2].set_title("distance of the two")
    for panel, (name, x) in zip(panels[3:], found["samples"].items()):
        panel.plot(*np.asarray(x[:2000]).T, ",")
        panel.set_title(f"{name}: {share(x):.0%} above", fontsize=10)
        panel.set(xlim=(-WINDOW, WINDOW), ylim=(-WINDOW, WINDOW))
    shown.tight_layout()
    return shown
