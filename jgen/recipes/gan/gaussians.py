"""GANs of points in the plane, without and with moved latents (LOGAN, CS-GAN): which modes of a mixture they find."""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from jgen import figures, samplers
from jgen.config.biggan import LatentMoveConfig, NaturalMoveConfig
from jgen.data.gaussians import GAUSSIANS, Gaussians
from jgen.metrics.gaussian_modes import gaussian_modes
from jgen.objectives.adversarial import GAN, discriminator_loss, generator_loss
from jgen.objectives.gan import non_saturating
from jgen.recipes.gan.moves import cs_gan, logan
from jgen.train.rates import rated_adam
from jgen.train.step import Phase, TrainState, init_state, make_step
from jgen.types import Array, Batch, Condition, DiscriminatorOutput, Extra, Key, Params, PyTree

Z_DIM, BATCH, WIDTH = 32, 128, 128
RATE, BETA_1 = 2e-4, 0.5
COUNTED = 2500
"""Points that are measured, as in VEEGAN."""
MOVES: Mapping[str, Callable[[GAN], GAN]] = {
    "plain": lambda form: form,
    "LOGAN": logan(NaturalMoveConfig(), Z_DIM),
    "CS-GAN": cs_gan(LatentMoveConfig(), non_saturating, BATCH),
}
"""How the latents are moved before every update. All three have the same networks and the same loss."""


class Points(nn.Module):
    """[B, D] -> [B, features], by two hidden layers."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        for _ in range(2):
            x = nn.relu(nn.Dense(WIDTH)(x))
        return nn.Dense(self.features)(x)


def planar_gan(scale: float = 1.0) -> GAN:
    """A generator of points in the plane and its discriminator. scale: of the data, by which G's points are multiplied."""
    g, d = Points(2), Points(1)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        keys = jax.random.split(key)
        return {
            "g": g.init(keys[0], jnp.zeros((1, Z_DIM)))["params"], "d": d.init(keys[1], jnp.zeros((1, 2)))["params"],
        }, {}  # fmt: skip

    def generate(params: Params, extra: Extra, z: PyTree, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
        weights = {name: value for name, value in params["g"].items() if name != "log_step"}  # CS-GAN's size of a move
        points: Any = g.apply({"params": weights}, z)
        return scale * points, {}

    def discriminate(
        params: Params, extra: Extra, x: Array, condition: Condition, /, *, train: bool
    ) -> tuple[DiscriminatorOutput, Extra]:
        logits: Any = d.apply({"params": params["d"]}, x / scale)
        return DiscriminatorOutput(logits[:, 0]), {}

    return GAN(
        init=init,
        latents=lambda keys, condition: samplers.noise(keys, (Z_DIM,)),
        train_latents=lambda key, images, rows: jax.random.normal(key, (rows, Z_DIM)),
        generate=generate,
        discriminate=discriminate,
    )


def train(form: GAN, data: Gaussians, steps: int, seed: int = 0) -> TrainState:
    """The state after some steps of D and G, in one compiled loop."""
    optimizers = {name: rated_adam(RATE, BETA_1) for name in ("d", "g")}
    phases = [Phase("d", discriminator_loss(form, non_saturating)), Phase("g", generator_loss(form, non_saturating))]
    step = make_step(phases, optimizers)

    @jax.jit
    def run(key: Key) -> TrainState:
        init_key, data_key, step_key = jax.random.split(key, 3)

        def one(state: TrainState, i: Array) -> tuple[TrainState, None]:
            batch = {"image": data.draw(jax.random.fold_in(data_key, i), BATCH)}
            return step(state, step_key, batch)[0], None

        return jax.lax.scan(one, init_state(*form.init(init_key, {}), optimizers), jnp.arange(steps))[0]

    return run(jax.random.key(seed))


def sample(form: GAN, state: TrainState, num: int = COUNTED, seed: int = 0) -> np.ndarray:
    """Points [num, 2]. Latents are moved first where the form moves them, as CS-GAN's authors sample."""
    z = form.latents(samplers.image_keys(seed, num), Condition())
    if form.move is not None:
        z, _ = form.move(state.params, state.extra, None, z, Condition())
    return np.asarray(form.generate(state.params, state.extra, z, Condition(), train=False)[0])


def study(steps: int, seeds: int = 1) -> dict[str, dict[str, Any]]:
    """{set: {move: {modes, high_quality (lists, a value a seed), points of the first seed [N, 2]}}}."""
    found: dict[str, dict[str, Any]] = {}
    for name, data in GAUSSIANS.items():
        found[name] = {}
        for move, change in MOVES.items():
            form = change(planar_gan(float(np.abs(data.means).max())))
            points = [sample(form, train(form, data, steps, seed), seed=seed) for seed in range(seeds)]
            scores = [gaussian_modes(each, data.means, data.deviation) for each in points]
            found[name][move] = {
                "modes": [score.found for score in scores],
                "high_quality": [score.high_quality for score in scores],
                "points": points[0],
            }
    return found


def figure(found: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The points of the first seed: a row a set, a column a move; crosses at the means."""
    shown = figures.new(9, 3 * len(found))
    axes = shown.subplots(len(found), len(MOVES), squeeze=False)
    for row, (name, moves) in zip(axes, found.items()):
        means = GAUSSIANS[name].means
        for panel, (move, each) in zip(row, moves.items()):
            panel.plot(*means.T, "x", color="grey")
            panel.plot(*np.asarray(each["points"]).T, ",")
            title = f"{move}: {each['modes'][0]} of {len(means)} modes, {each['high_quality'][0]:.0%} near one"
            panel.set_title(title, fontsize=8)
            limit = 1.4 * float(np.abs(means).max())
            panel.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    return shown
