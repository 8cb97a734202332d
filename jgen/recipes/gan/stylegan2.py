"""StyleGAN2's training (Karras et al. 2020, arXiv:1912.04958), as its own experiment and those that build on it have it."""

from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.gan import ArchitectureConfig
from jgen.objectives.augmentation import Augmentation
from jgen.recipes.gan.networks import stylegan2_networks
from jgen.recipes.gan.stage import StyleRecipe, style_stage
from jgen.recipes.gan.updates import style_updates
from jgen.train.stage import Stage


def stylegan2_stage(
    gan: GANConfig, augmentation: AugmentConfig, style: StyleConfig, own: ArchitectureConfig, data: DataConfig,
    train: TrainConfig, sampling: StyleSampling, name: str = "stylegan2", timed: Augmentation | None = None,
) -> Stage:  # fmt: skip
    """The one stage of a run. timed: an augmentation of what D sees, whose time D takes, in place of that of `augmentation`."""
    networks = stylegan2_networks(gan, style, own, data, train.dtype, augment_dim=1 if timed else 0)
    updates = style_updates(style, gan.learning_rate, lazy_g=True)
    recipe = StyleRecipe(networks, gan, augmentation, data, sampling, updates, style.mixing, timed)
    return style_stage(recipe, name, train)
