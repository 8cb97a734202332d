"""StyleGAN: a style-based generator (Karras et al. 2019, arXiv:1812.04948), grown as ProGAN is.

    python -m experiments.stylegan                            # digits, 4x4 and 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan --preset glyphs            # 16x16 characters, to measure how entangled Z and W are
    python -m experiments.stylegan --preset ffhq256 --data.name folder:FFHQ      # the paper's, for accelerators

Target of the paper at 1024x1024 on FFHQ: FID 4.40, perceptual path length 234 in W with mixing (tables 1 and 3), after 25
million images: a week on 8 V100. At 256x256 the paper reports nothing. Each stage begins from the moving average of the one
before, whose half-life is 10,000 images; the authors keep the weights and their average apart.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import jgen
from jgen.config import (
    AugmentConfig,
    DataConfig,
    Flat,
    GANConfig,
    GrowthConfig,
    MeshConfig,
    StyleConfig,
    StyleSampling,
    TrainConfig,
)

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=2800, save_every=1400, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    gan: Flat[GANConfig] = GANConfig()
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    style: Flat[StyleConfig] = StyleConfig(r1_every=4)
    growth: Flat[GrowthConfig] = GrowthConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=1500, save_every=1500, sample_every=1500, log_every=10),
        gan=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        style=StyleConfig(r1_every=8),
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=32, resolution=16, channels=1),
        train=TrainConfig(steps=2000, save_every=2000, sample_every=0, log_every=10),
        style=StyleConfig(r1_gamma=4.0, r1_every=4),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=32, resolution=256, resize="box", flip=True),
        train=TrainConfig(steps=37_500, save_every=10_000, sample_every=10_000, log_every=100),
        gan=GANConfig(512, 16384, 512, ema_kimg=10.0),
        style=StyleConfig(512, 8, r1_gamma=10.0, r1_every=1),
        growth=GrowthConfig(  # 25 million images in all
            fade_images=600_000,
            first_side=8,
            stage_steps=(2_344, 9_375, 18_750, 37_500, 37_500, 612_500),
            stage_batches=(256, 128, 64, 32, 32, 32),
            stage_rates=(1e-3, 1e-3, 1e-3, 1e-3, 1.5e-3, 2e-3),
        ),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan import StyleRecipe, growing_stages, style_updates, stylegan1_networks

    c = resolved(config)
    networks, updates_at = stylegan1_networks(c.gan, c.style, c.data, c.train.dtype), partial(style_updates, c.style)
    updates = updates_at(c.gan.learning_rate)
    recipe = StyleRecipe(networks, c.gan, c.augmentation, c.data, c.sampling, updates, c.style.mixing)
    return Experiment(growing_stages(recipe, c.growth, c.train, updates_at))


def published(file: Path) -> "Published":
    from jgen.recipes.gan.published import stylegan_file

    return stylegan_file(file)


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, published=published)
