"""Classifier guidance of any model of pixels (Dhariwal & Nichol 2021, arXiv:2105.05233) by a noisy classifier's run.

The classifier knows x_t = x / sqrt(1 + sigma^2) and the time at which its own chain has the level sigma, so it guides models of
other chains than its own, and of none.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments import classifier
from experiments._diffusion import schedule
from experiments._sampling import GONE, Solver, within

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from jgen.types import Denoise, Extra, Predict

Judge = Callable[[Any, Any], Any]
"""(x [B, H, W, C], sigma [B]), of the continuous coordinates -> log p(the class asked for | x) [B]."""


def judge(config: classifier.Config, weights: Any, label: Any) -> Judge:
    """A classifier's opinion of labels [B]."""
    import jax
    import jax.numpy as jnp

    from jgen.arrays import wide
    from jgen.objectives import edm

    classify, chain = classifier.logits_of(config), schedule(config)
    form = edm.chain(chain)

    def log_probability(x, sigma):
        logits = classify(weights, wide(form.scale(sigma), x) * x, form.noise(sigma))
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
        # Of a cosine chain's last steps nothing can be seen, but DDIM moves x_0 by sigma times the gradient: 20,000.
        return jnp.where(sigma <= GONE, found, 0.0)

    return log_probability


def settings(options: Solver) -> classifier.Config:
    """Those of the run that the options name. Raises UserError unless it is of a noisy classifier."""
    from jgen.config import from_dict
    from jgen.errors import UserError
    from jgen.experiment import read_config

    if not (Path(options.classifier) / "config.json").is_file():
        raise UserError(f"classifier={options.classifier}: no run there (it has no config.json)")
    stored = read_config(Path(options.classifier))
    if stored["module"] != "experiments.classifier":
        raise UserError(f"classifier={options.classifier}: is a run of {stored['module']}, not of experiments.classifier")
    config = from_dict(classifier.Config, stored["config"])
    if not config.noisy:
        raise UserError(f"classifier={options.classifier}: knows clean images alone; train one with --noisy")
    return config


def borrow(options: Solver, mesh: "Mesh | None" = None) -> "Extra":
    """What sampling by the options takes from another run: the classifier's weights, on the devices of a mesh."""
    from jgen.errors import UserError

    if not options.classifier:
        return {}
    if not options.classifier_scale:
        raise UserError(f"classifier_scale=0: leaves classifier={options.classifier} without a say; must be above 0")
    settings(options)  # which refuses other runs
    return {"classifier": _weights(options.classifier, mesh)}


@functools.lru_cache(1)
def _weights(folder: str, mesh: "Mesh | None") -> Any:
    """Those of a run of a classifier; kept, since a training's previews ask for them again and again."""
    from jgen.errors import UserError
    from jgen.experiment import load

    try:
        return load(folder, mesh).params["net"]
    except UserError as error:
        raise UserError(f"classifier={error}") from None  # whose message begins with the folder


def asked(config: Any, keys: Any, options: Solver) -> Any:
    """The class of every image [B]: the label asked for, or one drawn for each where it is -1.

    None for a model of no classes that no classifier guides to one. Raises UserError for a label that there is none of, and for
    a classifier that knows other classes.
    """
    from jgen import samplers
    from jgen.data import classes_of
    from jgen.errors import UserError

    classes = classes_of(config.data, getattr(config, "conditional", False))
    if options.classifier:
        known = settings(options).data.num_classes
        if config.data.num_classes not in (0, known):
            raise UserError(
                f"classifier={options.classifier}: knows {known} classes, {config.data.name} has {config.data.num_classes}"
            )
        classes = known
    return samplers.class_labels(keys, options.label, classes)


def heard(config: Any, label: Any) -> Any:
    """What the network is told of labels: nothing where it knows no classes, and a classifier alone does."""
    return label if config.conditional else None


def guide(
    options: Solver, extra: Any, label: Any, shape: Any, own: tuple[classifier.Config, Any] | None = None
) -> Judge | None:
    """The judge that the options ask for, of images of a shape; None where they ask for none.

    own: settings and weights of the classifier that a model has itself. Raises UserError where there is none to be asked, or
    one of other images.
    """
    from jgen.errors import UserError

    if not options.classifier_scale:
        return None
    if options.classifier:
        own = settings(options), extra["classifier"]
        if tuple(own[0].data.shape) != tuple(shape):
            theirs, ours = ("x".join(map(str, s)) for s in (own[0].data.shape, shape))
            raise UserError(f"classifier={options.classifier}: knows images of {theirs}, and these are {ours}")
    if own is None:
        raise UserError(
            f"classifier_scale={options.classifier_scale}: needs --classifier, a run of experiments.classifier --noisy"
        )
    if own[1] is None:
        raise UserError(f"classifier_scale={options.classifier_scale}: the classifier is not trained yet")
    return judge(*own, label)


def steered_predictor(options: Solver, predict: "Predict", by: Judge | None, level: Callable[[Any], Any]) -> "Predict":
    """A predictor of a chain, steered by a judge at the noise levels that the options name; level: t -> sigma."""
    import jax.numpy as jnp

    from jgen.arrays import wide
    from jgen.samplers import guidance

    if by is None:
        return predict

    def of_chain(x, t):
        sigma = level(t)
        return by(wide(jnp.sqrt(1 + sigma**2), x) * x, sigma)

    led = guidance.classifier(predict, of_chain, options.classifier_scale)
    freely = lambda x, t: predict(x, t)._replace(guide=jnp.zeros_like(x))  # noqa: E731
    return within(options, led, freely, level)


def steered(options: Solver, denoise: "Denoise", by: Judge | None) -> "Denoise":
    """The same of a denoiser."""
    from jgen.samplers import guidance

    if by is None:
        return denoise
    return within(options, guidance.classifier_denoiser(denoise, by, options.classifier_scale), denoise)


def steered_score(
    options: Solver, score: Any, by: Judge | None, place: Callable[[Any, Any], Any], level: Callable[[Any], Any]
) -> Any:
    """The same of a score (x, t); place: (x, t) -> x in the continuous coordinates; level: t -> sigma."""
    from jgen.samplers import guidance

    if by is None:
        return score

    def led(x, t):
        pull = guidance.log_gradient(lambda x, t: by(place(x, t), level(t)), x, t)
        return score(x, t) + options.classifier_scale * pull

    return within(options, led, score, level)
