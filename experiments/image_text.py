"""Image and text in one space: CLIP's objective (Radford et al. 2021, arXiv:2103.00020) with small encoders.

    python -m experiments.image_text                           # glyphs, 32x32: at most 4 minutes on 2 CPU cores
    python -m experiments.image_text --preset emoji32          # emoji and their names
    python -m experiments.image_text --data.captions minilm --data.limit 20000      # captions as features of MiniLM
    python -m experiments.image_text evaluate --num 256        # how often an image finds its caption, and the other way
    python -m experiments.stylegan2 edit --image PHOTO.png --text "a red A on blue" --scorer RUN

It says how well a picture fits a text, and so steers the editing of pictures by text. Target of glyphs, whose captions name
every image's letter, colours, size and tilt: 70 % R@1 among 256 held-out pairs, where chance is 0.4 % (not of a paper, whose
sets are the web's). CLIP's official weights load by `jgen.convert.clip`.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import DataConfig, Flat, MeshConfig, OptimizerConfig, TrainConfig
from jgen.config.image_text import ImageTextConfig

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("glyphs", batch_size=128, resolution=32, channels=3)
    train: TrainConfig = TrainConfig(steps=700, log_every=10, save_every=350, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    network: Flat[ImageTextConfig] = ImageTextConfig()
    optimizer: Flat[OptimizerConfig] = OptimizerConfig(3e-3, warmup=100, final_learning_rate=0.0, ema=0.99)


PRESETS = {
    "glyphs": Config(),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=128, resolution=32, channels=3),
        train=TrainConfig(steps=1200, log_every=10, save_every=400, sample_every=0),
        network=ImageTextConfig(channels=(32, 64, 96), dropout=0.1, shift=2, weight_decay=0.1),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes import image_text
    from jgen.recipes.common import Experiment, resolved

    c = resolved(config)
    return Experiment([image_text.stage(c.network, c.optimizer, c.data, c.train)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
