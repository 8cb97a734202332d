"""A class-conditional diffusion model and a classifier of noisy images that guides it, as two stages."""

from dataclasses import replace

from jgen.config import (
    Bound,
    ChainConfig,
    DataConfig,
    DiffusionSampling,
    Guidance,
    LabelConfig,
    OptimizerConfig,
    TrainConfig,
    UNetConfig,
)
from jgen.config.classifier import ClassifierConfig, OwnClassifierConfig
from jgen.errors import UserError
from jgen.recipes import classifier
from jgen.recipes.diffusion.chain import ChainRecipe, chain_recipe, ddpm_stage
from jgen.recipes.diffusion.evaluation import with_bound
from jgen.recipes.diffusion.noisy_classifier import NoisyClassifier, noisy_classifier
from jgen.recipes.diffusion.sampling import log_prob_of, sampler
from jgen.recipes.evaluation.guidance_curve import guidance_curve
from jgen.recipes.evaluation.observer import has_classifier
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Batch, Extra, Key, Params

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Scales of classifier-free guidance that the evaluation goes through."""
CLASSIFIER_SCALES = (1.0, 3.0, 10.0)
"""Scales of the classifier's gradient that it goes through."""


def classifier_config(own: OwnClassifierConfig, network: UNetConfig) -> ClassifierConfig:
    """The network of the second stage. Raises UserError for widths that it can't have."""
    if own.classifier_network == "cnn":
        classifier.check_widths(own.classifier_channels, "classifier_channels")
    return ClassifierConfig(
        network=own.classifier_network,
        channels=own.classifier_channels,
        stride=own.classifier_stride,
        depth=own.classifier_depth,
        attention=network.attention,
        dropout=0.0 if own.classifier_network == "adm" else 0.1,
        weight_decay=own.classifier_weight_decay,
        noisy=True,
    )


def guided_stages(
    own: OwnClassifierConfig, network: UNetConfig, chain: ChainConfig, labels: LabelConfig, data: DataConfig,
    train: TrainConfig, optimizer: OptimizerConfig, sampling: DiffusionSampling, bound: Bound, *,
    classifier_optimizer: OptimizerConfig, min_snr: float, learn_variance: bool,
) -> list[Stage]:  # fmt: skip
    """The model, then the classifier beside it. Samples of both are guided by the model itself, the classifier, or both.

    Raises UserError for a model without classes.
    """
    if not labels.conditional:
        raise UserError("conditional=False: this experiment guides a model of classes; see experiments.ddpm")
    recipe = chain_recipe(network, chain, labels, data, train, learn_variance)
    settings = classifier_config(own, network)
    noisy = noisy_classifier(settings, chain, data)
    log_prob = log_prob_of(recipe.model, lambda params: (noisy, params.get("classifier")))
    own_classifier = bool(sampling.guide.classifier_scale) and not sampling.guide.classifier
    untrained = replace(sampling, guide=replace(sampling.guide, classifier_scale=0.0)) if own_classifier else sampling
    first = ddpm_stage(
        "model", recipe, data, train, optimizer, sampling, bound,
        min_snr=min_snr, learn_variance=learn_variance, log_prob=log_prob,
    )  # fmt: skip
    alone = replace(train, steps=own.classifier_steps, sample_every=0)
    its_data = replace(data, batch_size=own.classifier_batch or data.batch_size)
    judged = classifier.stage(settings, chain, classifier_optimizer, its_data, alone, "classifier")
    evaluate = first.evaluate
    if has_classifier(data.name):
        evaluate = with_bound(recipe.model, bound, _curve(recipe, noisy, data, sampling))
    return [replace(first, options=untrained), _second(first, judged, sampling, evaluate)]


def _second(first: Stage, judged: Stage, sampling: DiffusionSampling, evaluate: Evaluate | None) -> Stage:
    """The stage that trains the classifier beside the model, whose samples it guides."""

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        (params, extra), (made, _) = first.init(key, batch), judged.init(key, batch)
        return {**params, **made}, extra

    def begin(params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        """The model as it was trained, and a fresh classifier."""
        return {**fresh, "net": params["net"]}, extra

    return replace(
        first,
        name="classifier",
        data=judged.data,
        train=judged.train,
        init=init,
        begin=begin,
        phases=judged.phases,
        optimizers=judged.optimizers,
        ema=judged.ema,
        supports=judged.supports,
        validate=judged.validate,
        options=sampling,
        evaluate=evaluate,
    )


def _curve(recipe: ChainRecipe, noisy: NoisyClassifier, data: DataConfig, sampling: DiffusionSampling) -> Evaluate:
    """Agreement, precision and recall of samples by the scale of guidance."""
    sample = sampler(recipe.model, data, log_prob_of(recipe.model, lambda params: (noisy, params.get("classifier"))))

    def draw(params: Params, extra: Extra, keys: Key, guidance: float, classifier_scale: float) -> Array:
        guide: Guidance = replace(sampling.guide, guidance=guidance, classifier_scale=classifier_scale)
        return sample(params, extra, keys, replace(sampling, label=-1, guide=guide))

    scales = SCALES if recipe.model.conditioning.drop else (1.0,)
    return guidance_curve(data, draw, scales, CLASSIFIER_SCALES)
