"""StyleGAN: a style-based generator (Karras et al. 2019, arXiv:1812.04948), grown as ProGAN is.

    python -m experiments.stylegan                            # digits, 4x4 and 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan --preset glyphs            # 16x16 characters, to measure how entangled Z and W are
    python -m experiments.stylegan --preset ffhq256 --data.name folder:FFHQ      # the paper's, for accelerators

Target of the paper at 1024x1024 on FFHQ: FID 4.40, perceptual path length 234 in W with mixing (tables 1 and 3), after 25
million images: a week on 8 V100.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import jgen
from experiments._style import FASHION_MNIST, PAPER_STYLES, Growing, Knobs
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config(Growing, Knobs):
    r1_every: int = 4
    """Steps between R1 penalties."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        **FASHION_MNIST, train=TrainConfig(steps=1500, save_every=1500, sample_every=1500, log_every=10), r1_every=8
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=32, resolution=16, channels=1),
        train=TrainConfig(steps=2000, save_every=2000, sample_every=0, log_every=10),
        r1_gamma=4.0,
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=32, resolution=256, flip=True),
        train=TrainConfig(steps=37_500, save_every=10_000, sample_every=10_000, log_every=100),
        first_steps=18_750,
        last_steps=575_000,  # 25 million images in all
        **PAPER_STYLES,
        r1_gamma=10.0,
        r1_every=1,
        ema_kimg=10.0,
    ),
}


def build(config: Config) -> "Experiment":
    from experiments._gan import shape_of
    from experiments._style_model import family, growing
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.models.gan.stylegan1 import Discriminator, Generator, noise_planes

    config = replace(config, data=resolve(config.data))
    side, channels, classes = shape_of(config.data, config.conditional)
    shared = (config.channel_base, config.channel_max)
    g = Generator(
        config.z_dim, classes, config.w_dim, side, channels, config.mapping_layers, config.w_dim, config.mapping_lr_mul, *shared
    )
    d = Discriminator(classes, side, channels, *shared)
    parts = family(g, d, config, noise_planes(side))
    return Experiment(growing(config, parts))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
