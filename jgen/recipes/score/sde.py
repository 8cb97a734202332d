"""Score models along an SDE (Song et al. 2021, arXiv:2011.13456): the score, its samplers, its likelihood, and its stage."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen import samplers, sde
from jgen.arrays import expand_dims_like
from jgen.bits import BitsPerDim
from jgen.config import DataConfig, LabelConfig, OptimizerConfig, TrainConfig, UNetConfig
from jgen.config.samplers import PredictorCorrector, ProbabilityFlow
from jgen.config.score import SDEConfig, SDESampling
from jgen.objectives import score
from jgen.objectives.conditioning import Conditioning
from jgen.objectives.score import projections
from jgen.recipes.common import adam
from jgen.recipes.diffusion.editing import image_edits
from jgen.recipes.diffusion.guidance import classifier_guided_score, free_guidance
from jgen.recipes.diffusion.model import DiffusionModel, NoiseLevels
from jgen.recipes.diffusion.networks import class_conditioning, image_network, supported
from jgen.recipes.diffusion.noise_space import image_noise
from jgen.recipes.diffusion.noisy_classifier import ClassLogProb, external_params
from jgen.recipes.diffusion.sampling import class_request, log_prob_of
from jgen.recipes.diffusion.sampling import sampler as denoiser_sampler
from jgen.recipes.diffusion.stage import init_fn
from jgen.recipes.score.checks import check_own_options
from jgen.samplers import pc, probability_flow
from jgen.samplers.table import function_of
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Condition, Extra, Key, LossFn, Params, PyTree, Sample, Score

Apply = Callable[..., Array]
"""(weights, x, t [B], condition, rngs=, train=) -> the score at time t."""


def process(config: SDEConfig, steps: int = 1000) -> sde.SDE:
    """The SDE, discretised in so many steps."""
    if config.sde == "ve":
        return sde.ve(config.sigma_min, config.sigma_max, steps)
    return {"vp": sde.vp, "subvp": sde.sub_vp}[config.sde](config.beta_min, config.beta_max, steps)


def score_fn(config: SDEConfig, net: nn.Module) -> Apply:
    """The score at a time of the SDE; the network gives the noise, or for ve minus the noise."""
    whole = process(config)

    def apply(weights: PyTree, x: Array, t: Array, condition: Condition, **how: Any) -> Array:
        def call(x: Array, time: Array) -> Array:
            found: Any = net.apply({"params": weights}, x, time, condition.label, **how)
            return found

        if config.sde != "ve":
            return sde.score_of(call, whole)(x, t)
        # Fourier features want the logarithm of the level; the U-Net's embedding is made for 0 to 1000.
        by_level = (lambda x, log: call(x, log)) if config.network == "ncsnpp" else (lambda x, log: call(x, 999 * t))
        return sde.score_of_level(by_level, whole)(x, t)

    return apply


def time_levels(whole: sde.SDE, steps: int) -> np.ndarray:
    """Noise levels [steps + 1] evenly spaced in the time of the SDE, 0 last."""
    with jax.ensure_compile_time_eval():
        t: Any = np.linspace(1.0, whole.end, steps, dtype=np.float32)  # a linspace of jax rounds otherwise
        return np.append(np.asarray(whole.std(t) / whole.mean(t), np.float64), 0.0)


def sde_levels(whole: sde.SDE) -> NoiseLevels:
    """The noise levels of an SDE: those of its first and last time."""
    most, least, _ = time_levels(whole, 2)
    return NoiseLevels(least, most, "log_snr", lambda steps, _: time_levels(whole, steps))


def sde_model(whole: sde.SDE, apply: Apply, shape: tuple[int, ...], conditioning: Conditioning, classes: int) -> DiffusionModel:
    """The denoiser that the score shows."""

    def denoise(params: Params, x: Array, sigma: Array, condition: Condition) -> Array:
        return sde.denoiser(whole, lambda x, t: apply(params["net"], x, t, condition))(x, sigma)

    return DiffusionModel(shape, denoise, sde_levels(whole), conditioning, classes)


def guided_score(
    whole: sde.SDE, apply: Apply, model: DiffusionModel, params: Params, condition: Condition, options: SDESampling,
    log_prob: ClassLogProb | None,
) -> Score:  # fmt: skip
    """(x, t) -> the score, guided as the options say."""

    def call(x: Array, t: Array, condition: Condition) -> Array:
        return apply(params["net"], x, t, condition)

    def level(t: Array) -> Array:
        return whole.std(t) / whole.mean(t)

    def to_continuous(x: Array, t: Array) -> Array:
        return x / expand_dims_like(whole.mean(t), x)

    by_image = options.solver.adaptive
    free = free_guidance(options.guide, call, condition, model.conditioning, level, by_image)
    return classifier_guided_score(options.guide, free, log_prob, to_continuous, level, by_image)


def predictor_corrector(config: SDEConfig, solver: PredictorCorrector, x: Array, keys: Key, field: Score) -> Array:
    """Images by the predictor and corrector that the options name."""
    predictor = None if solver.predictor == "none" else getattr(pc, solver.predictor)
    corrector = None if solver.corrector == "none" else partial(getattr(pc, solver.corrector), snr=solver.snr)
    how: dict[str, Any] = dict(predictor=predictor, corrector=corrector, corrector_steps=solver.corrector_steps)
    return function_of(solver)(process(config, solver.steps), field, x, keys, **how)


def sampler(config: SDEConfig, apply: Apply, model: DiffusionModel, data: DataConfig) -> Sample:
    """Predictor-corrector, the probability-flow ODE, or the denoiser of the score under any sampler."""
    whole, along_levels, log_prob_for = process(config), denoiser_sampler(model, data), log_prob_of(model)

    def sample(params: Params, extra: Extra, keys: Key, options: SDESampling) -> Array:
        solver = options.solver
        if solver.coordinates != "sde":
            return along_levels(params, extra, keys, options)
        check_own_options(options)
        request = class_request(model, data, keys, options)
        x = whole.prior_std * samplers.noise(keys, model.shape)

        def field(x: Array, t: Array, condition: Condition = request.condition, label: Array | None = request.label) -> Array:
            log_prob = log_prob_for(params, extra, request._replace(label=label), options)
            return guided_score(whole, apply, model, params, condition, options, log_prob)(x, t)

        if isinstance(solver, PredictorCorrector):
            return jnp.clip(predictor_corrector(config, solver, x, keys, field), -1, 1)
        assert isinstance(solver, ProbabilityFlow)
        return jnp.clip(_by_ode(whole, solver, x, field, request.condition, request.label), -1, 1)

    return sample


def _by_ode(
    whole: sde.SDE, solver: ProbabilityFlow, x: Array, field: Callable[..., Array], condition: Condition, label: Array | None
) -> Array:
    """Images by the ODE; the labels go with the images, which each have steps of their own."""
    labels = () if label is None else (label,)

    def score_of_label(x: Array, t: Array, label: Array | None = None) -> Array:
        return field(x, t, condition if condition.label is None else Condition(label=label), label)

    return function_of(solver)(whole, score_of_label, x, *labels, rtol=solver.tolerance, atol=solver.tolerance)


def likelihood(config: SDEConfig, apply: Apply, conditioning: Conditioning, tolerance: float) -> Evaluate:
    """The evaluation: exact bits/dim by the probability-flow ODE, and its standard error."""

    @jax.jit
    def bits(params: Params, key: Key, batch: Batch) -> Array:
        images, condition = batch["image"], conditioning.of_batch(batch)
        probe_key, level_key = jax.random.split(key)
        # Back to the 256 levels, then uniform noise within each: the density bounds that of the levels.
        levels = jnp.round((images + 1) * 127.5)
        x = (levels + jax.random.uniform(level_key, images.shape)) / 128 - 1
        field = lambda x, t: apply(params["net"], x, t, condition)  # noqa: E731
        probes, how = projections(probe_key, x.shape), dict(rtol=tolerance, atol=tolerance)
        return probability_flow.bits_per_dim(process(config), field, x, probes, together=True, **how)[0]

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        rows = [bits(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        found = jnp.concatenate(rows)
        mean = BitsPerDim(float(jnp.mean(found)), "uniform", bound=False)
        return {mean.name: mean.bits, "its standard error over images": jnp.std(found) / len(found) ** 0.5}

    return evaluate


def sde_stage(
    config: SDEConfig, shape: UNetConfig, labels: LabelConfig, data: DataConfig, train: TrainConfig,
    optimizer: OptimizerConfig, options: SDESampling,
) -> Stage:  # fmt: skip
    """The training of a score model along an SDE."""
    net = image_network(config.network, shape, labels, data, train)
    apply, conditioning = score_fn(config, net), class_conditioning(data, labels)
    classes = data.num_classes if labels.conditional else 0
    model = sde_model(process(config), apply, data.shape, conditioning, classes)

    def objective(train: bool) -> LossFn:
        how: dict[str, Any] = dict(likelihood=config.likelihood, conditioning=conditioning, train=train)
        how["mean"] = config.reduction == "mean"
        return score.continuous(apply, process(config), **how)

    return Stage(
        name="score_sde",
        data=data,
        train=train,
        init=init_fn(net, data.shape, bool(classes)),
        phases=[Phase("net", objective(True))],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        supports=frozenset(supported(config.network)),
        sample=sampler(config, apply, model, data),
        on_request=image_edits(model, data, options),
        noise=image_noise(model, data),
        options=options,
        external_params=external_params,
        validate=objective(False),
        evaluate=likelihood(config, apply, conditioning, options.likelihood_tolerance),
    )
