"""Diffusion-GAN on either of its bases (Wang et al. 2022, arXiv:2206.02262)."""

from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.diffusion_gan import DiffusionGANConfig
from jgen.config.gan import ArchitectureConfig
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig
from jgen.recipes.gan.diffused import diffused_images
from jgen.recipes.gan.projected import ProjectedRecipe, projected_stage
from jgen.recipes.gan.stylegan2 import stylegan2_stage
from jgen.train.stage import Stage


def diffused_stylegan2_stage(
    diffusion: DiffusionGANConfig, gan: GANConfig, augmentation: AugmentConfig, style: StyleConfig, own: ArchitectureConfig,
    data: DataConfig, train: TrainConfig, sampling: StyleSampling,
) -> Stage:  # fmt: skip
    """StyleGAN2's training with diffused images, whose time D takes."""
    augment = diffused_images(diffusion, augmentation)
    return stylegan2_stage(gan, augmentation, style, own, data, train, sampling, "diffusion_gan", augment)


def diffused_projected_stage(
    diffusion: DiffusionGANConfig, gan: FastGANConfig, heads: FeatureHeadsConfig, data: DataConfig, train: TrainConfig,
    sampling: StyleSampling,
) -> Stage:  # fmt: skip
    """Projected GAN's training with diffused feature maps."""
    return projected_stage(ProjectedRecipe(gan, heads, data, sampling, diffusion), train)
