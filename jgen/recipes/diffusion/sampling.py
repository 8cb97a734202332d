"""Sampling of any diffusion model by any sampler of the table: along its own chain, or from noise level to noise level."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen import samplers, schedules
from jgen.config import DataConfig, DiffusionSampling
from jgen.config.samplers import DDPM, Solver, Stepped
from jgen.recipes.diffusion.guidance import (
    Request,
    classifier_guided,
    classifier_guided_predictor,
    clip_denoised,
    free_guidance,
    guiding_classifier,
    requested_labels,
)
from jgen.recipes.diffusion.model import DiffusionModel, level_of
from jgen.recipes.diffusion.noisy_classifier import ClassLogProb, NoisyClassifier
from jgen.reverse import Variance
from jgen.samplers.table import function_of
from jgen.schedules import Schedule
from jgen.types import Array, Condition, Denoise, Extra, Key, Params, Predict, PyTree, Sample

OwnClassifier = Callable[[Params], tuple[NoisyClassifier, PyTree]]
"""params -> the classifier that a model has itself, and its weights; None for them where it is not trained yet."""
LogProbOf = Callable[[Params, Extra, Request, DiffusionSampling], ClassLogProb | None]
"""(params, extra, request, options) -> log p(label | x) by the classifier that guides, or None."""


def class_request(model: DiffusionModel, data: DataConfig, keys: Key, options: DiffusionSampling) -> Request:
    """The requested classes; the network takes them where it knows classes, else a classifier alone does."""
    label = requested_labels(keys, options, model.classes, data.num_classes)
    return Request(Condition(label=label) if model.classes else Condition(), label)


def log_prob_of(model: DiffusionModel, own: OwnClassifier | None = None) -> LogProbOf:
    """The guiding classifier of a model: its own, or that of a run."""

    def found(params: Params, extra: Extra, request: Request, options: DiffusionSampling) -> ClassLogProb | None:
        return guiding_classifier(options.guide, extra, request.label, model.shape, own and own(params))

    return found


def guided_predictor(
    model: DiffusionModel, params: Params, request: Request, options: DiffusionSampling, log_prob: ClassLogProb | None = None
) -> Predict:
    """(x_t, t) -> the prediction along the model's chain, guided as the options say."""
    predict, chain = model.predict, model.chain
    assert predict is not None
    assert chain is not None
    level, own_steps = level_of(chain), options.solver.adaptive

    def call(x: Array, t: Array, condition: Condition) -> Any:
        return predict(params, x, t, condition)

    guided = free_guidance(options.guide, call, request.condition, model.conditioning, level, own_steps)
    guided = clip_denoised(options.guide, guided) if model.pixels else guided
    return classifier_guided_predictor(options.guide, guided, log_prob, level, own_steps)


def guided_denoiser(
    model: DiffusionModel, params: Params, request: Request, options: DiffusionSampling, log_prob: ClassLogProb | None = None
) -> Denoise:
    """(x, sigma) -> the clean image, guided as the options say."""

    def call(x: Array, sigma: Array, condition: Condition) -> Array:
        return model.denoise(params, x, sigma, condition)

    own_steps = options.solver.adaptive
    guided = free_guidance(options.guide, call, request.condition, model.conditioning, by_image=own_steps)
    guided = clip_denoised(options.guide, guided) if model.pixels else guided
    return classifier_guided(options.guide, guided, log_prob, own_steps)


def along_chain(model: DiffusionModel, solver: Solver) -> bool:
    """Whether a sampler takes the steps of the model's own chain."""
    own = isinstance(solver, Stepped) and solver.grid in ("auto", "time") and not solver.sigma_min
    return solver.coordinates == "discrete" and model.chain is not None and own


def sample_discrete(
    solver: Solver, predict: Predict, chain: Schedule, keys: Key, x: Array, steps: int, variance: Any = "small"
) -> Array:
    """Images [B, H, W, C] from x_T by a sampler of the discrete coordinates, in so many steps of a chain.

    variance: of ancestral steps, where the options leave it open.
    """
    how = solver.arguments()
    if isinstance(solver, DDPM) and solver.variance == "auto":
        how["variance"] = variance
    return function_of(solver)(predict, chain, x, keys, timesteps=steps, **how)


def sample_continuous(solver: Solver, denoise: Denoise, keys: Key, x: Array, grid: np.ndarray) -> Array:
    """Images [B, H, W, C] by a sampler over noise levels [steps + 1], from x at the first of them; one key an image.

    A sampler of the discrete coordinates runs along the chain of those levels.
    """
    if solver.coordinates == "discrete":
        chain = schedules.of_levels(grid[-2::-1])
        start = x / (1 + grid[0] ** 2) ** 0.5
        return sample_discrete(solver, schedules.predictor(denoise, chain), chain, keys, start, len(chain))
    return function_of(solver)(denoise, x, grid, keys, **solver.arguments())


def from_noise(solver: Solver, denoise: Denoise, keys: Key, shape: tuple[int, ...], grid: np.ndarray) -> Array:
    """`sample_continuous` from noise of the greatest level."""
    return sample_continuous(solver, denoise, keys, grid[0] * samplers.noise(keys, shape), grid)


def draw(
    model: DiffusionModel, params: Params, keys: Key, request: Request, options: DiffusionSampling,
    log_prob: ClassLogProb | None = None,
) -> Array:  # fmt: skip
    """Images, or latents, by the options' sampler: along the model's chain, or from level to level."""
    solver = options.solver
    if along_chain(model, solver):
        assert model.chain is not None
        assert isinstance(solver, Stepped)
        schedules.check_steps(len(model.chain), solver.steps)
        predict, x = guided_predictor(model, params, request, options, log_prob), samplers.noise(keys, model.shape)
        return sample_discrete(solver, predict, model.chain, keys, x, solver.steps, model.variance)
    if model.chain is not None and isinstance(solver, Stepped):
        schedules.check_steps(len(model.chain), solver.steps)
    if isinstance(solver, DDPM) and solver.variance == "auto":
        solver = with_fixed_variance(solver, model.variance)
    denoise = guided_denoiser(model, params, request, options, log_prob)
    return from_noise(solver, denoise, keys, model.shape, model.levels.discretize(solver))


def sampler(model: DiffusionModel, data: DataConfig, log_prob: LogProbOf | None = None) -> Sample:
    """The sampler of a model of images; log_prob: as of `log_prob_of`. Raises UserError for options that can't be."""
    log_prob = log_prob or log_prob_of(model)

    def sample(params: Params, extra: Extra, keys: Key, options: DiffusionSampling) -> Array:
        request = class_request(model, data, keys, options)
        return jnp.clip(draw(model, params, keys, request, options, log_prob(params, extra, request, options)), -1, 1)

    return sample


def with_fixed_variance(solver: Solver, own: Variance = "small") -> Solver:
    """A denoiser says nothing of variances: that of the posterior stands for a learned one; own: the model's, for auto."""
    if not isinstance(solver, DDPM):
        return solver
    variance = own if solver.variance == "auto" else solver.variance
    return replace(solver, variance="small" if variance == "learned_range" else variance)
