"""A diffusion model as samplers know it: functions of its weights in both coordinate systems, before any guidance."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jgen import schedules, sigmas
from jgen.config import ChainConfig
from jgen.config.samplers import Adaptive, Grid, Solver, Stepped
from jgen.errors import UserError
from jgen.objectives import diffusion, edm
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning
from jgen.reverse import Variance
from jgen.schedules import Schedule
from jgen.types import Array, Condition, Params, Prediction, as_prediction

Network = Callable[[Params, Array, Array, Condition], Array]
"""(params, x, t or noise level [B], condition) -> the raw output, without dropout."""

SIGMA_CUTOFF = 200.0
"""The noise level above which nothing of an image is left: chains are sampled from there, be they noisier or not."""


class NoiseLevels(NamedTuple):
    """The noise levels that a model knows, and how they are spaced in sampling."""

    sigma_min: float
    sigma_max: float
    grid: Grid = "karras"
    """The spacing that suits the model."""
    by_time: Callable[[int, float], np.ndarray] | None = None
    """(steps, greatest level) -> the levels [steps + 1] of grid=time, 0 last; None for a model without times of its own."""

    def discretize(self, solver: Solver) -> np.ndarray:
        """The levels [steps + 1] of a sampling, 0 last; of an adaptive sampler the greatest, the least and 0.

        Raises UserError for a spacing that the model does not have, and a sigma_min out of its range.
        """
        if not isinstance(solver, Stepped | Adaptive):
            raise UserError(f"sampler={solver.sampler}: does not go along noise levels; try heun or ddim")
        if solver.sigma_min and not solver.sigma_min < self.sigma_max:
            raise UserError(f"sigma_min={solver.sigma_min}: must be below {self.sigma_max:.4g}, the greatest noise level")
        sigma_min = solver.sigma_min or self.sigma_min
        if isinstance(solver, Adaptive):
            return sigmas.exponential(2, sigma_min, self.sigma_max)
        grid = self.grid if solver.grid == "auto" else solver.grid
        if grid == "time":
            return self._times(solver)
        if grid == "log_snr":
            return sigmas.exponential(solver.steps, sigma_min, self.sigma_max)
        rho = {"karras": 7.0, "quadratic": 2.0, "uniform": 1.0}[grid]
        return sigmas.karras(solver.steps, sigma_min, self.sigma_max, rho)

    def _times(self, solver: Stepped) -> np.ndarray:
        if self.by_time is None:
            raise UserError("grid=time: this model has no times of its own; must be one of log_snr, karras, uniform, quadratic")
        if solver.sigma_min:
            raise UserError(f"sigma_min={solver.sigma_min}: grid=time goes down to the first of the model's times; try log_snr")
        return self.by_time(solver.steps, self.sigma_max)


@dataclass(frozen=True)
class DiffusionModel:
    """Functions of a model's weights, and what they were trained on."""

    shape: tuple[int, ...]
    """Shape of a sample: of an image, or of its latents."""
    denoise: Callable[[Params, Array, Array, Condition], Array]
    """(params, x, sigma [B], condition) -> the clean image."""
    levels: NoiseLevels
    conditioning: Conditioning = UNCONDITIONAL
    classes: int = 0
    """Labels that can be requested; 0 for a model without classes."""
    pixels: bool = True
    """Whether clean images are kept within [-1, 1]; latents are not."""
    chain: Schedule | None = None
    """The discrete chain that it was trained along, where it has one."""
    predict: Callable[[Params, Array, Array, Condition], Prediction] | None = None
    """(params, x_t, t [B], condition) -> the prediction along its chain."""
    variance: Variance = "small"
    """Variance of ancestral steps where the options leave it to the model."""


def noise_chain(config: ChainConfig) -> Schedule:
    """The noise chain that a config names. Raises UserError for too few steps."""
    try:
        return schedules.named(config.schedule, config.diffusion_steps)
    except UserError as error:
        raise UserError(f"diffusion_steps={config.diffusion_steps}: {str(error).partition(': ')[2]}") from None


def chain_levels(chain: Schedule) -> NoiseLevels:
    """The levels of a chain's sampling: from its last, or SIGMA_CUTOFF, to its first."""
    ends = float(chain.sigma[0]), min(float(chain.sigma[-1]), SIGMA_CUTOFF)
    return NoiseLevels(*ends, "log_snr", lambda steps, sigma_max: sigmas.of_schedule(chain, steps, sigma_max))


def chain_model(shape: tuple[int, ...], network: Network, chain: Schedule, prediction: Any, **more: Any) -> DiffusionModel:
    """A model of a discrete chain, under the samplers of both coordinate systems; more: other fields of it."""
    form = edm.chain(chain, prediction)

    def predict(params: Params, x: Array, t: Array, condition: Condition) -> Prediction:
        return as_prediction(diffusion.predictor(lambda x, t: network(params, x, t, condition), chain, prediction)(x, t))

    def denoise(params: Params, x: Array, sigma: Array, condition: Condition) -> Array:
        return edm.denoiser(lambda x, t: network(params, x, t, condition), form)(x, sigma)

    return DiffusionModel(shape, denoise, chain_levels(chain), chain=chain, predict=predict, **more)


def continuous_model(
    shape: tuple[int, ...], network: Network, precondition: edm.Precondition, levels: NoiseLevels, **more: Any
) -> DiffusionModel:
    """A model of the continuous coordinates; more: other fields of it."""

    def denoise(params: Params, x: Array, sigma: Array, condition: Condition) -> Array:
        return edm.denoiser(lambda x, noise: network(params, x, noise, condition), precondition)(x, sigma)

    return DiffusionModel(shape, denoise, levels, **more)


def level_of(chain: Schedule) -> Callable[[Array], Array]:
    """t -> the noise level sigma of a chain's step t."""
    return lambda t: jnp.asarray(chain.sigma, jnp.float32)[t]
