"""Preconditioning and objectives in continuous coordinates: VP, VE, iDDPM, EDM, discrete chains and flow matching.

Karras et al. 2022 (EDM, arXiv:2206.00364), table 1: every such model is D(x, sigma) = c_skip x + c_out F(c_in x, c_noise),
whatever its network F puts out, and is trained on weight(sigma) |D(y + sigma n, sigma) - y|^2. So any of them runs under any
sampler of the continuous coordinates. Flow matching (Lipman et al. 2022, arXiv:2210.02747; rectified flow, Liu et al. 2022,
arXiv:2209.03003) is one more row of that table: x_t = (1 - t) x_0 + t n is (x_0 + sigma n) / (1 + sigma) at
sigma = t / (1 - t), and F is the velocity n - x_0.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jgen.arrays import expand_dims_like
from jgen.errors import UserError
from jgen.nn.precision import at_least_float32
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning
from jgen.objectives.diffusion import PredictionType
from jgen.schedules import Schedule
from jgen.types import Array, Batch, Denoise, Extra, Key, LossFn, Metrics, Params

Network = Callable[[Array, Array], Array]
"""(c_in x [B, H, W, C], c_noise [B]) -> raw output [B, H, W, C], or twice as many channels, of which the first half counts."""

Function = Callable[[Array], Array]


@dataclasses.dataclass(frozen=True)
class Precondition:
    """How D is made of a network, by level sigma float32 [B]."""

    skip: Function
    out: Function
    scale: Function
    """c_in."""
    noise: Function
    """c_noise: the network's condition on the noise level."""
    sigma_min: float
    sigma_max: float
    """The levels it was trained on."""


def denoiser(network: Network, precondition: Precondition) -> Denoise:
    """D(x, sigma), the function that the samplers of the continuous coordinates take."""

    def denoise(x: Array, sigma: Array) -> Array:
        sigma = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), x.shape[:1])
        c = [expand_dims_like(f(sigma), x) for f in (precondition.skip, precondition.out, precondition.scale)]
        raw = network(c[2] * x, precondition.noise(sigma))[..., : x.shape[-1]]
        return c[0] * x + c[1] * at_least_float32(raw)

    return denoise


def edm(sigma_data: float = 0.5, sigma_min: float = 0.0, sigma_max: float = float("inf")) -> Precondition:
    """EDM's own, for any level: unit variance of what goes in and of what F should put out."""
    d = sigma_data
    return Precondition(
        lambda s: d**2 / (s**2 + d**2),
        lambda s: s * d / jnp.sqrt(s**2 + d**2),
        lambda s: 1 / jnp.sqrt(s**2 + d**2),
        lambda s: jnp.log(s) / 4,
        sigma_min,
        sigma_max,
    )


def vp(beta_d: float = 19.9, beta_min: float = 0.1, steps: int = 1000, epsilon: float = 1e-5) -> Precondition:
    """DDPM++ of Song et al. 2021: F predicts the noise, conditioned on the VP process's time x (steps - 1)."""

    def sigma(t: float) -> float:
        return float(np.sqrt(np.expm1(beta_d * t**2 / 2 + beta_min * t)))

    def time(s: Array) -> Array:
        return (jnp.sqrt(beta_min**2 + 2 * beta_d * jnp.log1p(s**2)) - beta_min) / beta_d

    return Precondition(
        jnp.ones_like,
        lambda s: -s,
        lambda s: 1 / jnp.sqrt(1 + s**2),
        lambda s: (steps - 1) * time(s),
        sigma(epsilon),
        sigma(1.0),
    )


def ve(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Precondition:
    """NCSN++ of Song et al. 2021: F predicts minus the noise of x, conditioned on log(sigma / 2)."""
    return Precondition(jnp.ones_like, lambda s: s, jnp.ones_like, lambda s: jnp.log(0.5 * s), sigma_min, sigma_max)


def iddpm_levels(steps: int = 1000, c_1: float = 0.001, c_2: float = 0.008) -> np.ndarray:
    """Improved DDPM's cosine chain as levels [steps + 1], falling; 0 last (EDM, table 1)."""
    alpha_bar = np.sin(0.5 * np.pi * np.arange(steps + 1) / steps / (c_2 + 1)) ** 2
    u = np.zeros(steps + 1)
    for j in range(steps, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(alpha_bar[j - 1] / alpha_bar[j], c_1) - 1)
    return u


def iddpm(steps: int = 1000, c_1: float = 0.001, c_2: float = 0.008) -> Precondition:
    """Improved DDPM: F predicts the noise, conditioned on the step of the cosine chain nearest to sigma."""
    table = iddpm_levels(steps, c_1, c_2)
    held = jnp.asarray(table, jnp.float32)

    def noise(s: Array) -> Array:
        return at_least_float32(steps - 1 - jnp.argmin(jnp.abs(s[:, None] - held[None]), -1))

    return Precondition(
        jnp.ones_like, lambda s: -s, lambda s: 1 / jnp.sqrt(1 + s**2), noise, float(table[steps - 1]), float(table[0])
    )


def chain(schedule: Schedule, prediction: PredictionType = "eps") -> Precondition:
    """A network of a discrete chain, conditioned on sigma's fractional step; log sigma is linear between steps."""
    table, times = (jnp.asarray(a, jnp.float32) for a in (np.log(schedule.sigma), schedule.timesteps))
    scale = lambda s: 1 / jnp.sqrt(1 + s**2)  # noqa: E731
    parts: dict[str, tuple[Function, Function]] = {
        "eps": (jnp.ones_like, lambda s: -s),
        "x0": (jnp.zeros_like, jnp.ones_like),
        "v": (lambda s: 1 / (1 + s**2), lambda s: -s / jnp.sqrt(1 + s**2)),
    }
    if prediction not in parts:
        raise UserError(f"prediction={prediction}: has no form in continuous coordinates; must be {', '.join(parts)}")
    time = lambda s: jnp.interp(jnp.log(s), table, times)  # noqa: E731
    return Precondition(*parts[prediction], scale, time, float(schedule.sigma[0]), float(schedule.sigma[-1]))


def cosine_v(sigma_data: float = 1.0) -> Precondition:
    """A network of v in continuous time, x_t = cos(pi t / 2) x_0 + sin(pi t / 2) n, conditioned on t in 0..1 (k-diffusion)."""
    d = sigma_data
    return Precondition(
        lambda s: d**2 / (s**2 + d**2),
        lambda s: -s * d / jnp.sqrt(s**2 + d**2),
        lambda s: 1 / jnp.sqrt(s**2 + d**2),
        lambda s: jnp.arctan(s) / jnp.pi * 2,
        1e-3,
        1e3,
    )


def flow(sigma_min: float = 1e-3, sigma_max: float = 1e3) -> Precondition:
    """Flow matching: F is the velocity n - x_0 from x_0 to n, conditioned on t = sigma / (1 + sigma) in 0..1."""
    return Precondition(
        lambda s: 1 / (1 + s), lambda s: -s / (1 + s), lambda s: 1 / (1 + s), lambda s: s / (1 + s), sigma_min, sigma_max
    )


@dataclasses.dataclass(frozen=True)
class Levels:
    """Which levels are trained on, and how they count."""

    sigma: Function
    """A standard normal or uniform draw -> level."""
    normal: bool
    """Whether the draw is normal; else uniform."""
    weight: Function
    """sigma -> weight of |D - y|^2."""


def edm_levels(mean: float = -1.2, deviation: float = 1.2, sigma_data: float = 0.5) -> Levels:
    """log sigma normal; every level weighs alike in terms of F (EDM, table 1)."""
    d = sigma_data
    return Levels(lambda z: jnp.exp(mean + deviation * z), True, lambda s: (s**2 + d**2) / (s * d) ** 2)


def vp_levels(beta_d: float = 19.9, beta_min: float = 0.1, epsilon: float = 1e-5) -> Levels:
    """Time uniform over the VP process; weight 1 / sigma^2, the simple loss of the noise."""

    def sigma(u: Array) -> Array:
        t = 1 + u * (epsilon - 1)
        return jnp.sqrt(jnp.expm1(beta_d * t**2 / 2 + beta_min * t))

    return Levels(sigma, False, lambda s: 1 / s**2)


def ve_levels(sigma_min: float = 0.02, sigma_max: float = 100.0) -> Levels:
    """log sigma uniform; weight 1 / sigma^2."""
    return Levels(lambda u: sigma_min * (sigma_max / sigma_min) ** u, False, lambda s: 1 / s**2)


def flow_levels(mean: float = 0.0, deviation: float = 1.0, logit_normal: bool = True) -> Levels:
    """Flow matching's plain squared error of the velocity, with t logit-normal (Esser et al. 2024, arXiv:2403.03206) or
    uniform."""

    def weight(s: Array) -> Array:
        return ((1 + s) / s) ** 2

    if logit_normal:  # t = sigmoid(mean + deviation z), so t / (1 - t) is its exponential
        return Levels(lambda z: jnp.exp(mean + deviation * z), True, weight)
    return Levels(lambda u: jnp.clip(u, 1e-4, 1 - 1e-4) / (1 - jnp.clip(u, 1e-4, 1 - 1e-4)), False, weight)


def loss_terms(denoise: Denoise, x0: Array, sigma: Array, noise: Array, weight: Function) -> Array:
    """weight(sigma) (D(y + sigma n, sigma) - y)^2 per element [B, H, W, C], for the given draws."""
    s = expand_dims_like(sigma, x0)
    return weight(s) * jnp.square(denoise(x0 + s * noise, sigma) - x0)


def denoising(
    apply: Callable[..., Array],
    precondition: Precondition,
    levels: Levels,
    *,
    player: str = "net",
    conditioning: Conditioning = UNCONDITIONAL,
    train: bool = True,
    augment: Callable[[Key, Array], tuple[Array, Array]] | None = None,
) -> LossFn:
    """The mean over pixels of `loss_terms`, with levels and noise drawn from the key.

    apply(params[player], x, c_noise, condition, rngs=, train=), with the condition that `conditioning` makes of the batch.
    augment(key, images) -> (images, the condition's augment labels), in training.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        x0, labels = batch["image"], None
        if augment and train:
            x0, labels = augment(jax.random.fold_in(key, 7), x0)  # apart from the keys below
        level_key, noise_key, dropout_key, label_key = jax.random.split(key, 4)
        draw = jax.random.normal if levels.normal else jax.random.uniform
        sigma = levels.sigma(draw(level_key, x0.shape[:1]))
        condition = conditioning.draw(label_key, batch, train).replace(augment=labels)

        def network(x: Array, time: Array) -> Array:
            return apply(params[player], x, time, condition, rngs={"dropout": dropout_key}, train=train)

        terms = loss_terms(denoiser(network, precondition), x0, sigma, jax.random.normal(noise_key, x0.shape), levels.weight)
        return jnp.mean(terms), (extra, {})

    return loss
