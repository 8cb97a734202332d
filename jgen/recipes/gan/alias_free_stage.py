"""The training of StyleGAN3: the non-saturating loss with lazy R1, ADA, and a blur of what D sees that fades."""

from typing import NamedTuple

from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.alias_free import AliasFreeConfig
from jgen.config.gan import ArchitectureConfig
from jgen.errors import UserError
from jgen.nn.precision import in_dtype
from jgen.objectives import augmentation
from jgen.objectives.adversarial import GAN
from jgen.objectives.augmentation import Augmentation
from jgen.objectives.blur import fading_blur
from jgen.recipes.common import both
from jgen.recipes.evaluation.equivariance import equivariance
from jgen.recipes.evaluation.modes import modes
from jgen.recipes.gan.alias_free import AliasFreeModel, alias_free_generator, still
from jgen.recipes.gan.alias_free_pictures import alias_free_pictures
from jgen.recipes.gan.animations import sticking
from jgen.recipes.gan.networks import stylegan2_discriminator
from jgen.recipes.gan.updates import Updates, style_updates
from jgen.train.lazy import ema_decay
from jgen.train.stage import Evaluate, Stage
from jgen.types import Array, Extra, Key, Params


class AliasFreeRecipe(NamedTuple):
    """The settings of a run."""

    gan: GANConfig
    style: StyleConfig
    own: AliasFreeConfig
    architecture: ArchitectureConfig
    augment: AugmentConfig
    data: DataConfig
    sampling: StyleSampling


def alias_free_updates(recipe: AliasFreeRecipe, form: GAN, augment: Augmentation) -> Updates:
    """StyleGAN's updates with a learning rate for each player; G's average of magnitudes moves in D's alone."""
    g = style_updates(recipe.style, recipe.gan.learning_rate)(still(form), augment)
    d = style_updates(recipe.style, recipe.own.d_learning_rate)(form, augment)
    phases = [phase for phase in g.phases if phase.player == "g"] + [phase for phase in d.phases if phase.player == "d"]
    return Updates(phases, {"g": g.optimizers["g"], "d": d.optimizers["d"]})


def alias_free_stage(recipe: AliasFreeRecipe, train: TrainConfig) -> Stage:
    """The one stage of a run. Raises UserError for an architecture of another generator."""
    if recipe.architecture.generator != "skip":
        raise UserError(f"generator={recipe.architecture.generator}: has no effect on StyleGAN3's; leave it out")
    config, own, chosen, data = recipe.gan, recipe.own, recipe.augment, recipe.data
    g = alias_free_generator(config, recipe.style, own, data)
    d = stylegan2_discriminator(config, recipe.architecture, data)
    model = AliasFreeModel(in_dtype(g, train.dtype), in_dtype(d, train.dtype), data, recipe.style.mixing)
    augment = augmentation.named(chosen.augment, target=chosen.ada_target, kimg=chosen.ada_kimg)
    augment = fading_blur(augment, own.blur_sigma, own.blur_kimg)
    form = model.gan(augment.state)
    phases, optimizers = alias_free_updates(recipe, form, augment)
    return Stage(
        name="stylegan3",
        data=data,
        train=train,
        init=form.init,
        phases=phases,
        optimizers=optimizers,
        ema={"g": ema_decay(data.batch_size, config.ema_kimg, config.ema_rampup or None)},
        supports=frozenset(("dtype",)),
        sample=model.sample,
        options=recipe.sampling,
        pictures=alias_free_pictures(model, recipe.sampling),
        on_request={"sticking": sticking(model.space(), recipe.sampling)},
        evaluate=_evaluate(model, recipe.sampling),
        moved=model.moved,
        space=model.space(),
    )


def _evaluate(model: AliasFreeModel, sampling: StyleSampling) -> Evaluate:
    """Lost modes, and equivariance at psi 1."""

    def transformed(params: Params, extra: Extra, keys: Key, transform: Array) -> Array:
        return model.moved(params, extra, keys, StyleSampling(sampling.label), transform)

    return both(modes(model.data, model.sample, sampling), equivariance(transformed))
