"""Guidance by a group of options: of a model by itself, by a classifier of noisy images, or both, at some noise levels."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.arrays import expand_dims_like
from jgen.config import DiffusionSampling, Guidance
from jgen.errors import UserError
from jgen.objectives.conditioning import Conditioning
from jgen.recipes.diffusion.noisy_classifier import ClassLogProb, NoisyClassifier, class_log_prob, classifier_of_run
from jgen.samplers import guidance
from jgen.samplers.common import F
from jgen.types import Array, Condition, Denoise, Extra, Key, Predict, Prediction, PyTree, Score, as_prediction

Call = Callable[[Array, Array, Condition], Any]
"""(x, t or sigma [B], condition) -> what a predictor, a denoiser or a score gives."""
Level = Callable[[Array], Array]
"""t [B] -> noise level sigma [B]."""
A = TypeVar("A")


class Request(NamedTuple):
    """The condition that the images of a sampling are drawn for."""

    condition: Condition = Condition()
    """As the network takes it."""
    label: Array | None = None
    """int [B]: the class, for a classifier that guides; None without a request."""


def requested_labels(keys: Key, options: DiffusionSampling, classes: int, data_classes: int) -> Array | None:
    """The class of every image [B]: the requested label, or one drawn for each where it is -1.

    classes: labels that the network knows; data_classes: those of its set. None for a model of no classes that no classifier
    guides. Raises UserError for a label that there is none of, and for a classifier that knows other classes.
    """
    if options.guide.classifier:
        known = classifier_of_run(options.guide.classifier)[0].classes
        if data_classes not in (0, known):
            raise UserError(f"classifier={options.guide.classifier}: knows {known} classes, the set has {data_classes}")
        classes = known
    return samplers.class_labels(keys, options.label, classes)


def guiding_classifier(
    guide: Guidance,
    extra: Extra,
    label: Array | None,
    shape: tuple[int, ...],
    own: tuple[NoisyClassifier, PyTree] | None = None,
) -> ClassLogProb | None:
    """log p(label | x) by the classifier that the options ask for, of images of a shape; None where they ask for none.

    own: the classifier that a model has itself, and its weights. Raises UserError without a classifier, or for one of other
    images.
    """
    if not guide.classifier_scale:
        return None
    if guide.classifier:
        own = classifier_of_run(guide.classifier)[0], extra["classifier"]
        if own[0].shape != tuple(shape):
            theirs, ours = ("x".join(map(str, s)) for s in (own[0].shape, shape))
            raise UserError(f"classifier={guide.classifier}: knows images of {theirs}, and these are {ours}")
    if own is None:
        raise UserError(
            f"classifier_scale={guide.classifier_scale}: needs --classifier, a run of experiments.classifier --noisy"
        )
    if own[1] is None:
        raise UserError(f"classifier_scale={guide.classifier_scale}: the classifier is not trained yet")
    assert label is not None
    return class_log_prob(*own, label)


def free_guidance(
    guide: Guidance, call: Call, condition: Condition, conditioning: Conditioning, level: Level = lambda t: t,
    by_image: bool = False,
) -> Callable[[Array, Array], Any]:  # fmt: skip
    """(x, t) -> call(x, t, condition), with the options' classifier-free guidance.

    level: the noise level of t, where t is not it. by_image: each image has its own. Raises UserError for a model that can't be
    guided, and for an empty interval of levels, guided or not.
    """
    check_interval(guide)

    def unguided(x: Array, t: Array) -> Any:
        return call(x, t, condition)

    scale = guide.guidance
    if scale == 1:
        return unguided
    conditional = bool(jax.tree.leaves(condition))
    if not (conditional and conditioning.drop):
        how = "the model was trained with all labels" if conditional else "this model is not class-conditional"
        wanted = "--drop-label 0.1" if conditional else "--conditional --drop-label 0.1"
        raise UserError(f"guidance={scale}: {how}; train one with {wanted}")
    guided = samplers.cfg_batched(call, condition, conditioning.null(condition), scale)
    return in_guidance_interval(guide, guided, unguided, level, by_image)


def check_interval(guide: Guidance) -> None:
    """Raises UserError for an empty interval of noise levels."""
    if not guide.guidance_from < guide.guidance_to:
        raise UserError(f"guidance_from={guide.guidance_from}: must be below guidance_to={guide.guidance_to}")


def in_guidance_interval(guide: Guidance, guided: F, unguided: F, level: Level = lambda t: t, by_image: bool = False) -> F:
    """`guided` at the noise levels that the options name, `unguided` elsewhere."""
    if guide.guidance_from <= 0 and guide.guidance_to >= 1e9:
        return guided
    return guidance.interval(guided, unguided, guide.guidance_from, guide.guidance_to, level, by_image=by_image)


def clip_denoised(guide: Guidance, function: F) -> F:
    """A predictor or denoiser whose clean images are within [-1, 1], clipped or by the options' dynamic threshold, if at all.

    Raises UserError for a threshold of images that are not to be kept within it.
    """
    if not guide.clip_denoised:
        if guide.threshold:
            raise UserError(f"threshold={guide.threshold}: has no effect with --no-clip-denoised; take 0")
        return function
    return samplers.dynamic_threshold(function, guide.threshold) if guide.threshold else samplers.clip(function)


def classifier_guided_predictor(
    guide: Guidance, predict: Predict, log_prob: ClassLogProb | None, level: Level, by_image: bool = False
) -> Predict:
    """A predictor of a chain, guided by a classifier; level: t -> sigma."""
    if log_prob is None:
        return predict

    def of_chain(x: Array, t: Array) -> Array:
        sigma = level(t)
        return log_prob(expand_dims_like(jnp.sqrt(1 + sigma**2), x) * x, sigma)

    def unguided(x: Array, t: Array) -> Prediction:
        return as_prediction(predict(x, t))._replace(guide=jnp.zeros_like(x))

    guided = guidance.classifier(predict, of_chain, guide.classifier_scale)
    return in_guidance_interval(guide, guided, unguided, level, by_image)


def classifier_guided(guide: Guidance, denoise: Denoise, log_prob: ClassLogProb | None, by_image: bool = False) -> Denoise:
    """A denoiser, guided by a classifier."""
    if log_prob is None:
        return denoise
    guided = guidance.classifier_denoiser(denoise, log_prob, guide.classifier_scale)
    return in_guidance_interval(guide, guided, denoise, by_image=by_image)


def classifier_guided_score(
    guide: Guidance,
    score: Score,
    log_prob: ClassLogProb | None,
    to_continuous: Callable[[Array, Array], Array],
    level: Level,
    by_image: bool = False,
) -> Score:
    """A score (x, t), guided by a classifier; to_continuous: (x, t) -> x in continuous coordinates; level: t -> sigma.

    Raises UserError for an empty interval of levels, guided or not.
    """
    check_interval(guide)
    if log_prob is None:
        return score

    def guided(x: Array, t: Array) -> Array:
        gradient = guidance.log_gradient(lambda x, t: log_prob(to_continuous(x, t), level(t)), x, t)
        return score(x, t) + guide.classifier_scale * gradient

    return in_guidance_interval(guide, guided, score, level, by_image)
