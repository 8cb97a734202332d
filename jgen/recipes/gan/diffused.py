"""The augmentations of Diffusion-GAN, by its options: images diffused for StyleGAN2, features for Projected GAN."""

from jgen.config import AugmentConfig
from jgen.config.diffusion_gan import DiffusionGANConfig
from jgen.objectives import augmentation
from jgen.objectives.augmentation import Augmentation
from jgen.objectives.diffusion_gan import PROJECTED, Process, diffusion

STYLEGAN2 = Process()
"""The authors' process for images."""


def process_of(config: DiffusionGANConfig) -> Process:
    """The process of the options, with the authors' numbers of the base where there are none."""
    own = PROJECTED if config.base == "projected" else STYLEGAN2
    return Process(
        config.t_min or own.t_min, config.t_max or own.t_max, config.schedule, config.beta_start,
        config.beta_end or own.beta_end, config.noise_std or own.noise_std, config.distribution,
    )  # fmt: skip


def diffused_images(config: DiffusionGANConfig, augment: AugmentConfig) -> Augmentation:
    """Images diffused after the augmentation of `augment`; D takes the time."""
    first = augmentation.named(augment.augment, target=augment.ada_target, kimg=augment.ada_kimg)
    return diffusion(process_of(config), target=config.diffusion_target, kimg=config.diffusion_kimg, first=first)


def diffused_features(config: DiffusionGANConfig, first: Augmentation) -> Augmentation:
    """Images as `first` makes them, and a key of the noise on their features."""
    target, kimg = config.diffusion_target, config.diffusion_kimg
    return diffusion(process_of(config), target=target, kimg=kimg, projected=True, first=first)
