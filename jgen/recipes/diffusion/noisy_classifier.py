"""Classifiers of noisy images, whose gradient guides (Dhariwal & Nichol 2021, arXiv:2105.05233, section 4.1)."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jgen.arrays import expand_dims_like
from jgen.config import ChainConfig, DataConfig, DiffusionSampling, OptimizerConfig, TrainConfig, from_dict
from jgen.config.classifier import ClassifierConfig
from jgen.errors import UserError
from jgen.objectives import edm
from jgen.recipes import classifier
from jgen.recipes.diffusion.model import SIGMA_CUTOFF, noise_chain
from jgen.run_folder import read_config
from jgen.schedules import Schedule
from jgen.sharding import make_mesh
from jgen.train.stage import Stage, restore
from jgen.types import Array, Extra, PyTree

ClassLogProb = Callable[[Array, Array], Array]
"""(x [B, H, W, C], sigma [B]), in continuous coordinates -> log p(the requested label | x) [B]."""

EXPERIMENT = "experiments.classifier"


class NoisyClassifier(NamedTuple):
    """A classifier of noisy images as a function, and what it was trained on."""

    logits: classifier.Logits
    chain: Schedule
    shape: tuple[int, ...]
    classes: int


def noisy_classifier(config: ClassifierConfig, chain: ChainConfig, data: DataConfig) -> NoisyClassifier:
    """The classifier of these settings."""
    return NoisyClassifier(classifier.logits_of(config, data), noise_chain(chain), tuple(data.shape), data.num_classes)


def class_log_prob(noisy: NoisyClassifier, weights: PyTree, label: Array) -> ClassLogProb:
    """log p(label | x) of noisy images, by a classifier's weights; label int [B].

    The classifier knows x_t = x / sqrt(1 + sigma^2) and the time at which its own chain has the level sigma, so it guides
    models of other chains than its own, and of none.
    """
    form = edm.chain(noisy.chain)

    def log_prob(x: Array, sigma: Array) -> Array:
        logits = noisy.logits(weights, expand_dims_like(form.scale(sigma), x) * x, form.noise(sigma))
        found = jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]
        # Of a cosine chain's last steps nothing can be seen, but DDIM moves x_0 by sigma times the gradient: 20,000.
        return jnp.where(sigma <= SIGMA_CUTOFF, found, 0.0)

    return log_prob


def classifier_of_run(folder: str) -> tuple[NoisyClassifier, Stage]:
    """The classifier of a run, and its stage. Raises UserError unless it is a run of a noisy classifier."""
    if not (Path(folder) / "config.json").is_file():
        raise UserError(f"classifier={folder}: no run there (it has no config.json)")
    stored = read_config(Path(folder))
    if stored["module"] != EXPERIMENT:
        raise UserError(f"classifier={folder}: is a run of {stored['module']}, not of {EXPERIMENT}")
    values = stored["config"]
    config = from_dict(ClassifierConfig, values.get("network"), "network.")
    chain = from_dict(ChainConfig, values.get("chain"), "chain.")
    data = from_dict(DataConfig, values.get("data"), "data.")
    optimizer = from_dict(OptimizerConfig, values.get("optimizer"), "optimizer.")
    if not config.noisy:
        raise UserError(f"classifier={folder}: knows clean images alone; train one with --noisy")
    train = from_dict(TrainConfig, values.get("train"), "train.")
    return noisy_classifier(config, chain, data), classifier.stage(config, chain, optimizer, data, train)


def external_params(options: DiffusionSampling, mesh: Mesh | None = None) -> Extra:
    """Weights of the classifier's run that the options name, on the devices of a mesh; nothing where they name none."""
    guide = options.guide
    if not guide.classifier:
        return {}
    if not guide.classifier_scale:
        raise UserError(f"classifier_scale=0: classifier={guide.classifier} has no effect by it; must be above 0")
    return {"classifier": _weights(guide.classifier, mesh)}


@functools.lru_cache(1)
def _weights(folder: str, mesh: Mesh | None) -> PyTree:
    """Kept, since a training's previews ask for them again and again."""
    _, stage = classifier_of_run(folder)
    found = restore(stage, Path(folder) / "checkpoints", mesh or make_mesh())
    if found is None:
        raise UserError(f"classifier={folder}: has no checkpoint yet")
    return found[1].averaged["net"]
