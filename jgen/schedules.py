"""Noise schedules of discrete-time diffusion: betas, every table made from them, and shortened chains.

Time index 0 is the first noising step. Tables are float64 numpy, computed once on the host; a sampler or loss gathers
from their float32 copies. Sources: Ho et al. 2020 (DDPM, eq. 4-7), Nichol & Dhariwal 2021 (cosine, eq. 17), and the
tables of their reference implementations.
"""

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import Literal, get_args

import jax.numpy as jnp
import numpy as np

from jgen.errors import UserError, check_choice
from jgen.types import Array, Denoise, Predict, Prediction, as_prediction


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """A chain of T noising steps q(x_t | x_{t-1}) = N(sqrt(1 - beta_t) x_{t-1}, beta_t).

    betas: float64 [T], each in (0, 1]. timesteps: int [T], the network's time at each step; 0..T-1 unless
    the chain was shortened by `respace`.
    """

    betas: np.ndarray
    timesteps: np.ndarray

    def __len__(self) -> int:
        return len(self.betas)

    @cached_property
    def alpha_bar(self) -> np.ndarray:
        """Product of (1 - beta) up to and with t: x_t = sqrt(alpha_bar) x_0 + sqrt(1 - alpha_bar) eps."""
        return np.cumprod(1.0 - self.betas)

    @cached_property
    def alpha_bar_prev(self) -> np.ndarray:
        """alpha_bar of the step before; 1 at t = 0."""
        return np.append(1.0, self.alpha_bar[:-1])

    @cached_property
    def alpha_bar_next(self) -> np.ndarray:
        """alpha_bar of the step after; 0 at the end."""
        return np.append(self.alpha_bar[1:], 0.0)

    @cached_property
    def sigma(self) -> np.ndarray:
        """Noise level in the continuous coordinates x / sqrt(alpha_bar); increases with t."""
        return np.sqrt((1.0 - self.alpha_bar) / self.alpha_bar)

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t-1} | x_t, x_0), DDPM eq. 7 ("small"); 0 at t = 0."""
        return self.betas * (1.0 - self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    @cached_property
    def posterior_log_variance(self) -> np.ndarray:
        """Its logarithm, where entry 0, which would be -inf, repeats entry 1."""
        return np.log(np.append(self.posterior_variance[1], self.posterior_variance[1:]))

    @cached_property
    def large_log_variance(self) -> np.ndarray:
        """log beta ("large"), with the posterior's entry 1 at t = 0, as the reference code has it."""
        return np.log(self.large_variance)

    @cached_property
    def large_variance(self) -> np.ndarray:
        """beta, with the posterior's entry 1 at t = 0."""
        return np.append(self.posterior_variance[1], self.betas[1:])

    @cached_property
    def posterior_mean_x0(self) -> np.ndarray:
        """Weight of x_0 in the posterior mean, DDPM eq. 7."""
        return self.betas * np.sqrt(self.alpha_bar_prev) / (1.0 - self.alpha_bar)

    @cached_property
    def posterior_mean_xt(self) -> np.ndarray:
        """Weight of x_t in the posterior mean, DDPM eq. 7."""
        return (1.0 - self.alpha_bar_prev) * np.sqrt(1.0 - self.betas) / (1.0 - self.alpha_bar)

    def respace(self, timesteps: Sequence[int] | np.ndarray) -> "Schedule":
        """The shorter chain that visits only `timesteps` (increasing indices into this chain).

        Its betas are 1 - alpha_bar[k] / alpha_bar[kept before]; the network still hears the original time.
        """
        steps = np.asarray(timesteps, np.int64)
        if steps.ndim != 1 or not len(steps):
            raise UserError(f"timesteps={timesteps}: a sampler needs at least 1")
        if steps[0] < 0 or steps[-1] >= len(self) or np.any(np.diff(steps) <= 0):
            raise UserError(f"timesteps={_brief(steps)}: must increase and lie in 0..{len(self) - 1}")
        kept = self.alpha_bar[steps]
        return Schedule(1.0 - kept / np.append(1.0, kept[:-1]), self.timesteps[steps])


def from_betas(betas: np.ndarray) -> Schedule:
    """A full chain from its betas [T]; raises UserError unless each is in (0, 1]."""
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) < 2 or not np.all((betas > 0) & (betas <= 1)):
        raise UserError(f"betas={_brief(betas)}: must be at least 2 numbers in (0, 1]")
    return Schedule(betas, np.arange(len(betas)))


def linear(steps: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02, rescale: bool = True) -> Schedule:
    """DDPM's linear betas, end points scaled by 1000 / steps so that a short chain ends as noisy as a long one.

    rescale: False keeps the end points, as the DDIM repository's "linear" does. Raises UserError for 20 steps or fewer, where
    a rescaled beta would reach 1.
    """
    scale = _scale(steps, beta_T, "linear") if rescale else 1.0
    return from_betas(np.linspace(beta_1 * scale, beta_T * scale, steps, dtype=np.float64))


def _scale(steps: int, beta_T: float, name: str) -> float:
    """The factor on betas of a chain of 1,000 steps for one of `steps`."""
    if 1000 * beta_T >= steps:
        raise UserError(f"steps={steps}: the {name} schedule needs more than {int(1000 * beta_T)} steps; use cosine")
    return 1000 / steps


def cosine(steps: int = 1000, offset: float = 0.008, max_beta: float = 0.999) -> Schedule:
    """Nichol & Dhariwal's cosine alpha_bar (eq. 17), each beta capped at `max_beta`."""
    if steps < 2:
        raise UserError(f"steps={steps}: a schedule needs at least 2")
    alpha_bar = np.cos((np.arange(steps + 1) / steps + offset) / (1 + offset) * np.pi / 2) ** 2
    return from_betas(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], max_beta))


def scaled_linear(steps: int = 1000, beta_1: float = 8.5e-4, beta_T: float = 0.012) -> Schedule:
    """Betas whose square roots are linear: latent diffusion's "linear", the DDIM repository's "quad".

    As the authors have it, for any number of steps: a chain much shorter than 1,000 does not end in noise (see `named`).
    """
    return from_betas(np.linspace(beta_1**0.5, beta_T**0.5, max(steps, 0), dtype=np.float64) ** 2)


def sigmoid(steps: int = 1000, beta_1: float = 1e-4, beta_T: float = 0.02) -> Schedule:
    """The DDIM repository's sigmoid ramp over [-6, 6]; of short chains as `scaled_linear`."""
    return from_betas(beta_1 + (beta_T - beta_1) / (1 + np.exp(-np.linspace(-6, 6, max(steps, 0)))))


Name = Literal["linear", "cosine", "scaled_linear", "sigmoid"]


def named(name: Name, steps: int) -> Schedule:
    """One of the schedules above, with its paper's other settings.

    Betas are scaled by 1000 / steps, as `linear` does by itself, so that every chain ends in noise. Raises UserError for too
    few steps.
    """
    check_choice(get_args(Name), schedule=name)
    if name in ("linear", "cosine"):
        return {"linear": linear, "cosine": cosine}[name](steps)
    make, (beta_1, beta_T) = {"scaled_linear": (scaled_linear, (8.5e-4, 0.012)), "sigmoid": (sigmoid, (1e-4, 0.02))}[name]
    scale = _scale(steps, beta_T, name)
    return make(steps, beta_1 * scale, beta_T * scale)


def check_steps(total: int, count: int) -> None:
    """Raises UserError for more steps than the total, or none."""
    if not 1 <= count <= total:
        raise UserError(f"steps={count}: must be from 1 to the schedule's {total}")


def evenly(total: int, count: int) -> np.ndarray:
    """`count` of the `total` steps, evenly spaced, both ends included (a single one is step 0).

    Positions are accumulated in floating point and rounded half to even, as guided-diffusion's respacing does.

    >>> evenly(1000, 4).tolist()
    [0, 333, 666, 999]
    """
    check_steps(total, count)
    stride = (total - 1) / (count - 1) if count > 1 else 0.0
    return np.round(np.cumsum(np.append(0.0, np.full(count - 1, stride)))).astype(np.int64)


def sections(total: int, counts: Sequence[int]) -> np.ndarray:
    """Evenly spaced steps within each of len(counts) equal sections, none of one whose count is 0; leftover steps go to the
    first sections. Raises UserError for counts that are all 0, below it or above their section.

    >>> sections(10, [2, 3]).tolist(), sections(10, [0, 2]).tolist()
    ([0, 4, 5, 7, 9], [5, 9])
    """
    if not len(counts) or min(counts) < 0 or not any(counts):
        raise UserError(f"counts={list(counts)}: must be at least 0 each, and one of them above")
    size, extra = divmod(total, len(counts))
    starts = np.cumsum([0] + [size + (i < extra) for i in range(len(counts))])
    return np.concatenate([a + evenly(b - a, n) for a, b, n in zip(starts, starts[1:], counts) if n])


def strided(total: int, count: int) -> np.ndarray:
    """Steps 0, k, 2k, ... with the smallest whole stride k that gives exactly `count` ("ddimN" of the ADM scripts).

    >>> strided(1000, 4).tolist()
    [0, 250, 500, 750]
    """
    for stride in range(1, total + 1):
        if len(range(0, total, stride)) == count:
            return np.arange(0, total, stride)
    raise UserError(f"steps={count}: no whole stride takes exactly so many of {total} steps")


def shifted(total: int, count: int, spacing: Literal["uniform", "quad"] = "uniform") -> np.ndarray:
    """Latent diffusion's subset: whole strides from 0 (there may be more than `count`), or squares, all moved up by one.

    >>> shifted(1000, 4).tolist()
    [1, 251, 501, 751]
    """
    check_steps(total, count)
    uniform = np.arange(0, total, total // count)
    steps = 1 + (uniform if spacing == "uniform" else (np.linspace(0, np.sqrt(total * 0.8), count) ** 2).astype(int))
    return np.unique(steps[steps < total])


def at(table: np.ndarray, t: Array, ndim: int) -> Array:
    """table[t] as float32 (float64 where that is on), shaped [B, 1, ...] to multiply an array of `ndim` dimensions."""
    return jnp.asarray(table, float)[t].reshape(t.shape + (1,) * (ndim - t.ndim))


def guided_x0(prediction: Prediction, xt: Array, alpha_bar: Array) -> Array:
    """The clean image that follows from the guided score: eps - sqrt(1 - alpha_bar) guide, put back into x_0."""
    if prediction.guide is None:
        return prediction.x0
    return prediction.x0 + (1 - alpha_bar) / jnp.sqrt(alpha_bar) * prediction.guide


def of_levels(sigma: np.ndarray) -> Schedule:
    """The chain whose steps have the noise levels sigma [T], increasing and above 0: alpha_bar = 1 / (1 + sigma^2).

    >>> of_levels(np.array([0.5, 2.0])).sigma.round(6).tolist()
    [0.5, 2.0]
    """
    sigma = np.asarray(sigma, np.float64)
    if sigma.ndim != 1 or not len(sigma) or sigma[0] <= 0 or np.any(np.diff(sigma) <= 0):
        raise UserError(f"sigma={_brief(sigma)}: must be levels above 0 that increase")
    square = np.append(0.0, sigma**2)
    return Schedule(np.diff(square) / (1 + square[1:]), np.arange(len(sigma)))


def predictor(denoise: Denoise, schedule: Schedule) -> Predict:
    """The bridge from the continuous coordinates: any denoiser D(x, sigma) along a whole chain, such as that of `of_levels`.

    The clean image that x_t shows is D(x_t / sqrt(alpha_bar_t), sigma_t). So EDM's, flow matching's and score models run under
    DDIM, ancestral sampling and RePaint.
    """

    def predict(xt: Array, t: Array) -> Prediction:
        level = jnp.broadcast_to(at(schedule.sigma, t, 1), xt.shape[:1])
        return Prediction(denoise(xt / at(np.sqrt(schedule.alpha_bar), t, xt.ndim), level))

    return predict


def denoiser(predict: Predict, schedule: Schedule) -> Denoise:
    """The bridge to the continuous coordinates: D(x, sigma) for any sigma, by the nearest time of the chain.

    x = x_t / sqrt(alpha_bar_t), sigma = sqrt((1 - alpha_bar_t) / alpha_bar_t); nearest in log sigma.
    """
    log_sigma = jnp.asarray(np.log(schedule.sigma), jnp.float32)

    def denoise(x: Array, sigma: Array) -> Array:
        level = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), x.shape[:1])
        t = jnp.argmin(jnp.abs(jnp.log(jnp.maximum(level, 1e-20))[:, None] - log_sigma[None]), axis=-1)
        xt = x * at(np.sqrt(schedule.alpha_bar), t, x.ndim)
        prediction = as_prediction(predict(xt, jnp.asarray(schedule.timesteps)[t]))
        return guided_x0(prediction, xt, at(schedule.alpha_bar, t, x.ndim))

    return denoise


def _brief(values: np.ndarray) -> str:
    return np.array2string(values, threshold=6, edgeitems=2, precision=4, separator=", ")
