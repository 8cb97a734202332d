"""A stage of training of a GAN that works in powers of 2, and how it is measured."""

from typing import NamedTuple

from jgen.config import AugmentConfig, DataConfig, GANConfig, LabelSampling, StyleSampling, TrainConfig
from jgen.objectives import augmentation
from jgen.objectives.augmentation import Augmentation
from jgen.recipes.common import both
from jgen.recipes.evaluation.entanglement import entanglement
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.animations import sticking
from jgen.recipes.gan.networks import Networks
from jgen.recipes.gan.style import Growth, StyleModel
from jgen.recipes.gan.style_pictures import style_pictures
from jgen.recipes.gan.updates import UpdatesOf
from jgen.train.lazy import ema_decay
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Params


class StyleRecipe(NamedTuple):
    """The networks and settings that every stage of a run has."""

    networks: Networks
    gan: GANConfig
    augment: AugmentConfig
    data: DataConfig
    sampling: LabelSampling | StyleSampling
    updates: UpdatesOf
    mixing: float = 0.0
    """Probability of style mixing."""
    augmentation: Augmentation | None = None
    """The augmentation of what D sees, in place of that of `augment`."""
    styles: bool = True
    """Adds pictures of what styles control, and measures of how entangled they are."""


def style_stage(recipe: StyleRecipe, name: str, train: TrainConfig, growth: Growth | None = None) -> Stage:
    """A stage of training; with growth at part of the networks' resolution."""
    data, sampling, config, chosen = recipe.data, recipe.sampling, recipe.gan, recipe.augment
    classes = data.num_classes if config.conditional else 0
    model = StyleModel(recipe.networks, data, classes, recipe.mixing, growth)
    named = augmentation.named(chosen.augment, target=chosen.ada_target, kimg=chosen.ada_kimg)
    augment = recipe.augmentation or named
    form = model.gan(augment.state)
    phases, optimizers = recipe.updates(form, augment)
    return Stage(
        name=name,
        data=data,
        train=train,
        init=form.init,
        phases=phases,
        optimizers=optimizers,
        ema={"g": ema_decay(data.batch_size, config.ema_kimg, config.ema_rampup or None)},
        supports=frozenset(("dtype",)),
        sample=model.sample,
        options=sampling,
        pictures=style_pictures(model, sampling) if recipe.styles and isinstance(sampling, StyleSampling) else {},
        on_request={"sticking": sticking(model.space(), sampling)} if isinstance(sampling, StyleSampling) else {},
        evaluate=_evaluate(model, sampling, recipe.styles),
        moved=model.moved if isinstance(sampling, StyleSampling) else None,
        space=model.space() if isinstance(sampling, StyleSampling) else None,
    )


def _evaluate(model: StyleModel, sampling: LabelSampling | StyleSampling, styles: bool) -> Evaluate:
    """Lost modes; of an unconditional network with styles also how entangled Z and W are."""
    found = modes(model.data, model.sample, sampling)
    if not styles or model.classes:
        return found

    def mapping(params: Params, z: Array) -> Array:
        return model.networks.map(params["g"], z, None)

    return both(found, entanglement(model.data, model.networks.z_dim, mapping, model.from_w))
