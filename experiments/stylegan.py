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
from experiments._style import Knobs
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config(Knobs):
    first_steps: int = 300
    """Steps at 4x4; train.steps are those at each larger resolution."""
    fade: float = 0.5
    """Share of a stage in which its level comes in."""
    learning_rate: float = 2.5e-3
    r1_every: int = 4
    """Steps between R1 penalties."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        channel_base=512,
        channel_max=64,
        train=TrainConfig(steps=1500, save_every=1500, sample_every=1500, log_every=10),
        r1_every=8,
        ema_kimg=5.0,
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=32, resolution=16, channels=1),
        train=TrainConfig(steps=2000, save_every=2000, sample_every=0, log_every=10),
    ),
    "ffhq256": Config(
        data=DataConfig("folder:ffhq", batch_size=32, resolution=256, flip=True),
        train=TrainConfig(steps=37_500, save_every=10_000, sample_every=10_000, log_every=100),
        first_steps=18_750,
        z_dim=512,
        w_dim=512,
        mapping_layers=8,
        channel_base=16384,
        channel_max=512,
        r1_gamma=10.0,
        r1_every=1,
        ema_kimg=10.0,
    ),
}


def build(config: Config) -> "Experiment":
    from experiments._gan import padded_side
    from experiments._style import family, growing, style_losses
    from jgen.data import resolve
    from jgen.experiment import Experiment
    from jgen.models.gan.stylegan1 import Discriminator, Generator, noise_planes

    config = replace(config, data=resolve(config.data))
    side, channels = padded_side(config.data), config.data.shape[-1]
    classes = config.data.num_classes if config.conditional else 0
    shared = (config.channel_base, config.channel_max)
    g = Generator(
        config.z_dim, classes, config.w_dim, side, channels, config.mapping_layers, config.w_dim, config.mapping_lr_mul, *shared
    )
    d = Discriminator(classes, side, channels, *shared)
    parts = family(g, d, config, noise_planes(side))
    return Experiment(growing(config, parts, style_losses, config.first_steps, config.fade))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
