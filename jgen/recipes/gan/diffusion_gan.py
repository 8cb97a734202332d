"""Diffusion-GAN on either of its bases (Wang et al. 2022, arXiv:2206.02262)."""

from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.diffusion_gan import DiffusionGANConfig
from jgen.config.gan import ArchitectureConfig
from jgen.config.projected import FastGANConfig, FeatureHeadsConfig
from jgen.recipes.gan.diffused import diffused_images
from jgen.recipes.gan.networks import stylegan2_networks
from jgen.recipes.gan.projected import ProjectedRecipe, projected_stage
from jgen.recipes.gan.stage import StyleRecipe, style_stage
from jgen.recipes.gan.updates import style_updates
from jgen.train.stage import Stage


def diffused_stylegan2_stage(
    diffusion: DiffusionGANConfig, gan: GANConfig, augmentation: AugmentConfig, style: StyleConfig, own: ArchitectureConfig,
    data: DataConfig, train: TrainConfig, sampling: StyleSampling,
) -> Stage:  # fmt: skip
    """StyleGAN2's training with diffused images, whose time D takes."""
    networks = stylegan2_networks(gan, style, own, data, train.dtype, augment_dim=1)
    updates = style_updates(style, gan.learning_rate, lazy_g=True)
    augment = diffused_images(diffusion, augmentation)
    recipe = StyleRecipe(networks, gan, augmentation, data, sampling, updates, style.mixing, augment)
    return style_stage(recipe, "diffusion_gan", train)


def diffused_projected_stage(
    diffusion: DiffusionGANConfig, gan: FastGANConfig, heads: FeatureHeadsConfig, data: DataConfig, train: TrainConfig,
    sampling: StyleSampling,
) -> Stage:  # fmt: skip
    """Projected GAN's training with diffused feature maps."""
    return projected_stage(ProjectedRecipe(gan, heads, data, sampling, diffusion), train)
