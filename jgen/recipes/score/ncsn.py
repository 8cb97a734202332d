"""Noise conditional score networks (Song & Ermon 2019, arXiv:1907.05600; 2020, arXiv:2006.09011): stage and sampling.

Images are taken as [0, 1] inside, so levels and step sizes read as in the papers; those of [-1, 1] are twice as large.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen import samplers
from jgen.arrays import expand_dims_like
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.samplers import AnnealedLangevin, ConsistentLangevin
from jgen.config.score import NCSNConfig, NCSNSampling
from jgen.errors import UserError
from jgen.models.ncsn import NCSN, NCSNv2
from jgen.nn.precision import in_dtype
from jgen.objectives import score
from jgen.recipes.common import adam, mean_loss
from jgen.recipes.diffusion.editing import image_edits
from jgen.recipes.diffusion.guidance import classifier_guided_score
from jgen.recipes.diffusion.model import DiffusionModel, NoiseLevels
from jgen.recipes.diffusion.noise_space import image_noise
from jgen.recipes.diffusion.noisy_classifier import external_params
from jgen.recipes.diffusion.sampling import class_request, log_prob_of
from jgen.recipes.diffusion.sampling import sampler as denoiser_sampler
from jgen.recipes.score.checks import check_own_options
from jgen.samplers.langevin import geometric
from jgen.samplers.table import function_of
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Stage
from jgen.types import Array, Batch, Condition, Extra, Key, LossFn, Metrics, Params, PyTree, Sample, Score

Apply = Callable[..., Array]
"""(weights, x in [0, 1], sigma [B]) -> the score."""


def levels_of(config: NCSNConfig) -> np.ndarray:
    """The noise levels [L], noisiest first."""
    return geometric(config.sigma_max, config.sigma_min, config.levels)


def network(config: NCSNConfig, channels: int) -> tuple[nn.Module, Callable[[Array], Array]]:
    """(the network, its input for a level sigma [B])."""
    if config.version == 2:
        return NCSNv2(config.channels, channels), lambda sigma: sigma
    rise = jnp.asarray(np.log(levels_of(config)[::-1]), jnp.float32)

    def index(sigma: Array) -> Array:
        """The number of the nearest level, noisiest first."""
        place = jnp.interp(jnp.log(sigma), rise, jnp.arange(config.levels - 1.0, -1.0, -1.0))
        return jnp.round(place).astype(jnp.int32)

    return NCSN(config.channels, channels, levels=config.levels), index


def score_model(config: NCSNConfig, apply: Apply, shape: tuple[int, ...]) -> DiffusionModel:
    """The denoiser of the score, of images in [-1, 1], whose levels are twice those of images in [0, 1]."""

    def denoise(params: Params, x: Array, sigma: Array, condition: Condition) -> Array:
        inside, level = 0.5 * (x + 1), jnp.broadcast_to(0.5 * sigma, x.shape[:1])
        return x + 2 * expand_dims_like(level, x) ** 2 * apply(params["net"], inside, level)

    return DiffusionModel(shape, denoise, NoiseLevels(2 * config.sigma_min, 2 * config.sigma_max))


def langevin(config: NCSNConfig, field: Score, keys: Key, shape: tuple[int, ...], options: NCSNSampling) -> Array:
    """Images in [0, 1] by annealed Langevin dynamics, in the form that the options choose."""
    sigmas, solver = levels_of(config), options.solver
    x = sigmas[0] * samplers.noise(keys, shape)
    run, how = function_of(solver), solver.arguments()
    if isinstance(solver, ConsistentLangevin):
        many = geometric(config.sigma_max, config.sigma_min, config.levels * solver.steps_each)
        return run(field, x, many, keys, denoise=solver.denoise)
    assert isinstance(solver, AnnealedLangevin)
    how["step_size"] = solver.step_size or samplers.step_size_for(sigmas, solver.steps_each)
    return run(field, x, sigmas, keys, **how)


def sampler(config: NCSNConfig, apply: Apply, model: DiffusionModel, data: DataConfig) -> Sample:
    """Annealed Langevin dynamics in the papers' two forms, or the denoiser of the score under any sampler."""
    along_levels, log_prob_for = denoiser_sampler(model, data), log_prob_of(model)

    def sample(params: Params, extra: Extra, keys: Key, options: NCSNSampling) -> Array:
        if options.guide.guidance != 1:
            raise UserError(f"guidance={options.guide.guidance}: this model is not class-conditional; try --classifier")
        if options.solver.coordinates != "levels":
            return along_levels(params, extra, keys, options)
        check_own_options(options)
        log_prob = log_prob_for(params, extra, class_request(model, data, keys, options), options)

        def field(x: Array, sigma: Array) -> Array:
            return apply(params["net"], x, sigma)

        # Levels of images in [0, 1] are half of those that the classifier knows.
        guided = classifier_guided_score(options.guide, field, log_prob, lambda x, sigma: 2 * x - 1, lambda sigma: 2 * sigma)
        return jnp.clip(2 * langevin(config, guided, keys, model.shape, options) - 1, -1, 1)

    return sample


def ncsn_stage(
    config: NCSNConfig, data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig, options: NCSNSampling
) -> Stage:
    """The training of a noise conditional score network."""
    (plain, level_input), held = network(config, data.shape[-1]), jnp.asarray(levels_of(config), jnp.float32)
    net = in_dtype(plain, train.dtype)

    def apply(weights: PyTree, x: Array, sigma: Array, *_: Any, **__: Any) -> Array:
        found: Any = net.apply({"params": weights}, x, level_input(sigma))
        return found

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        return {"net": net.init(key, jnp.zeros((1, *data.shape)), level_input(held[:1]))["params"]}, {}

    matching: LossFn = {"denoising": score.annealed, "sliced": score.annealed_sliced}[config.objective](apply, held)

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        return matching(params, extra, key, {**batch, "image": 0.5 * (batch["image"] + 1)})

    model = score_model(config, apply, data.shape)
    return Stage(
        name="ncsn",
        data=data,
        train=train,
        init=init,
        phases=[Phase("net", loss)],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        sample=sampler(config, apply, model, data),
        on_request=image_edits(model, data, options),
        noise=image_noise(model, data),
        options=options,
        external_params=external_params,
        supports=frozenset(("dtype",)),
        validate=loss,
        evaluate=mean_loss(loss),
    )
