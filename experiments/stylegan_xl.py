"""StyleGAN-XL (Sauer et al. 2022, arXiv:2202.00273): StyleGAN3 grown from a stem, against heads on pretrained features.

    python -m experiments.stylegan_xl                            # glyphs, 16x16: under 4 minutes on 2 CPU cores
    python -m experiments.stylegan_xl --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.stylegan_xl --preset emoji32           # 32x32 in colour: at most 60 minutes on 2 CPU cores
    python -m experiments.stylegan_xl --preset fashion_mnist --guidance 1
    python -m experiments.stylegan_xl --preset cifar10 --deit-file deit_base_distilled_patch16_224-df68dfff.pth    # the paper's

One command trains the stem and every later stage; each begins from the averaged generator before it, whose layers stay as they
are. Classes go through means of EfficientNet-Lite0's 320 channels over images of each. The paper has a second feature network,
DeiT, with heads of its own: --backbones deit efficientnet_lite0 --deit-file FILE, with the official weights in a file of yours.

Target of the cifar10 preset, for accelerators: FID 1.85, class-conditional (table 5). Its sizes are the authors' for small
sets; they stop a stage when FID does, and the numbers of steps are jgen's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, StyleSampling, TrainConfig
from jgen.config.projected import FeatureHeadsConfig
from jgen.config.stylegan_xl import StyleGANXLConfig

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("glyphs", batch_size=16, resolution=16)
    train: TrainConfig = TrainConfig(steps=300, save_every=300, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    own: Flat[StyleGANXLConfig] = StyleGANXLConfig()
    heads: Flat[FeatureHeadsConfig] = FeatureHeadsConfig(head_width=32, mixing_width=16)


PRESETS = {
    "glyphs": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=600, save_every=600, sample_every=600, log_every=10),
        own=StyleGANXLConfig(stem_side=16, stem_layers=5, head_layers=4, stem_steps=1200, ema_kimg=5.0),
        heads=FeatureHeadsConfig(head_width=32, mixing_width=16),
    ),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=32, resolution=32, channels=3),
        train=TrainConfig(steps=600, save_every=600, sample_every=600, log_every=10),
        own=StyleGANXLConfig(stem_side=16, stem_layers=5, head_layers=4, stem_steps=1200, ema_kimg=5.0),
        heads=FeatureHeadsConfig(head_width=32, mixing_width=16),
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=400_000, save_every=10_000, sample_every=10_000, log_every=100),
        own=StyleGANXLConfig(
            64,
            512,
            32768,
            512,
            stem_side=16,
            stem_layers=7,
            head_layers=4,
            margin=10,
            stem_steps=400_000,
            ema_kimg=20.0,
            path_weight=2.0,
        ),
        heads=FeatureHeadsConfig(("deit", "efficientnet_lite0"), feature_size=224, blur_sigma=2.0, blur_kimg=300.0),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.gan.stylegan_xl import XLRecipe, xl_stages

    c = resolved(config)
    return Experiment(xl_stages(XLRecipe(c.own, c.heads, c.data, c.sampling), c.train))


def published(file: Path) -> "Published":
    from jgen.recipes.gan.published_xl import stylegan_xl_file

    return stylegan_xl_file(file)


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, published=published)
