"""The updates of a step: their losses, how often they run, and the optimizers of both players."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax

from jgen.config import StyleConfig
from jgen.config.gan import CriticConfig
from jgen.objectives import gan
from jgen.objectives.adversarial import GAN, Logits, discriminator_loss, generator_loss
from jgen.objectives.augmentation import Augmentation
from jgen.objectives.gan_penalties import gradient_penalty
from jgen.objectives.style_losses import added, path_loss, r1_loss
from jgen.train import Phase
from jgen.train.lazy import lazy_adam
from jgen.train.rates import rated_adam
from jgen.types import Array, Key


class Updates(NamedTuple):
    phases: list[Phase]
    optimizers: dict[str, optax.GradientTransformation]
    """{player: optimizer}."""


UpdatesOf = Callable[[GAN, Augmentation], Updates]
"""A training recipe: the updates of any GAN under an augmentation of what D sees."""


def style_updates(config: StyleConfig, learning_rate: float, lazy_g: bool = False) -> UpdatesOf:
    """StyleGAN's: the non-saturating loss, with lazy path length and R1; an R1 of every step is part of D's own update.

    lazy_g: G's rates are those of a player with a lazy regulariser even without path length, as StyleGAN2-ADA's authors train.
    """

    def updates(form: GAN, augment: Augmentation) -> Updates:
        plain = rated_adam(learning_rate, 0.0, 0.99)
        phases = [Phase("g", generator_loss(form, gan.non_saturating, augment))]
        if config.path_weight:
            path = path_loss(form, config.path_weight, config.path_every)
            phases += [Phase("g", path, config.path_every, "path")]
        d_loss, lazy_d = discriminator_loss(form, gan.non_saturating, augment), bool(config.r1_gamma) and config.r1_every > 1
        r1 = r1_loss(form, config.r1_gamma, config.r1_every, augment)
        if lazy_d:
            phases += [Phase("d", d_loss), Phase("d", r1, config.r1_every, "r1")]
        else:
            phases += [Phase("d", added(d_loss, r1) if config.r1_gamma else d_loss)]
        g = lazy_adam(learning_rate, interval=config.path_every) if config.path_weight or lazy_g else plain
        d = lazy_adam(learning_rate, interval=config.r1_every) if lazy_d else plain
        return Updates(phases, {"g": g, "d": d})

    return updates


def critic_updates(config: CriticConfig, learning_rate: float) -> UpdatesOf:
    """ProGAN's: WGAN-GP with drift.

    The gradient penalty takes images before augmentation, as `discriminator_loss` gives them to every regulariser. Earlier
    versions took it at augmented images, so numbers differ from theirs where augment is not none.
    """
    critic = gan.separate(lambda x: -x + config.drift * x**2, lambda x: x, lambda x: -x)

    def penalty(logits: Logits, key: Key, real: Array, fake: Array) -> Array:
        alphas = jax.random.uniform(key, real.shape[:1])
        return config.penalty_weight * gradient_penalty(logits, real, fake, alphas, config.slope)

    def updates(form: GAN, augment: Augmentation) -> Updates:
        adam = rated_adam(learning_rate, 0.0, 0.99)
        d = discriminator_loss(form, critic, augment, [penalty])
        return Updates([Phase("g", generator_loss(form, critic, augment)), Phase("d", d)], {"g": adam, "d": adam})

    return updates
