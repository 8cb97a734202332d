"""Encoders into StyleGAN's W+: pSp (Richardson et al. 2020, arXiv:2008.00951) and e4e (Tov et al. 2021, arXiv:2102.02766).

    python -m experiments.inversion                            # digits, 8x8: at most 8 minutes on 2 CPU cores, GAN and encoder
    python -m experiments.inversion --encoder e4e              # one style and small deltas, which edit better
    python -m experiments.inversion --gan RUN --data.name emoji --data.resolution 32      # for a run of any StyleGAN
    python -m experiments.inversion sample --picture inversion
    python -m experiments.inversion invert --image PHOTO.png --method pti                 # or w, w_plus, encoder, encoder_plus
    python -m experiments.inversion edit --image PHOTO.png --direction pca:0 --by 2
    python -m experiments.inversion mix --image A.png --image B.png --rows coarse
    python -m experiments.inversion --text --gan RUN --data.name glyphs ...               # and a text encoder (TediGAN)
    python -m experiments.inversion edit --image PHOTO.png --text "a red A on blue" --scorer RUN
    python -m experiments.inversion edit --image PHOTO.png --from-text "a green A on blue" --text "a red A on blue"
    python -m experiments.inversion generate --text "a red A on blue" --num 8             # or --label 3, --sketch FILE.png

The commands work on runs of the StyleGANs themselves too, by optimisation. Without --gan a StyleGAN2 is trained first.
Target of digits: held-out images within 20 dB PSNR (not of a paper, whose sets are faces). Pivotal tuning (Roich et al. 2021,
arXiv:2106.05744) of one picture: 30 dB. Text: TediGAN (Xia et al. 2021, arXiv:2012.03308); --scorer is a run of
experiments.image_text or a file of CLIP's weights.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jgen
from jgen.config import AugmentConfig, DataConfig, Flat, GANConfig, MeshConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.gan import ArchitectureConfig
from jgen.config.inversion import EncoderConfig

if TYPE_CHECKING:
    from jgen.recipes.gan.published import Published
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=1200, save_every=600, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: StyleSampling = StyleSampling()
    inversion: Flat[EncoderConfig] = EncoderConfig()
    networks: Flat[GANConfig] = GANConfig()
    augmentation: Flat[AugmentConfig] = AugmentConfig()
    style: Flat[StyleConfig] = StyleConfig(path_weight=2.0)
    architecture: Flat[ArchitectureConfig] = ArchitectureConfig()


PRESETS = {
    "digits": Config(),
    "emoji32": Config(
        data=DataConfig("emoji", batch_size=16, resolution=32, channels=3),
        train=TrainConfig(steps=2400, save_every=800, sample_every=1200, log_every=10),
        inversion=EncoderConfig(encoder="e4e", delta_from=800, delta_every=100),
        networks=GANConfig(channel_base=512, channel_max=64, ema_kimg=5.0),
        augmentation=AugmentConfig("ada"),
        style=StyleConfig(r1_every=16, path_weight=2.0),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.inversion.stages import check_gan, encoder_stage, stylegan2_first

    c = resolved(config)
    if c.inversion.gan:
        check_gan(c.inversion.gan)
        run = jgen.load(c.inversion.gan)
        return Experiment([encoder_stage(run.stage, (run.params, run.extra), c.inversion, c.data, c.train)])
    gan = (c.networks, c.augmentation, c.style, c.architecture, c.data, c.train, c.sampling)
    return Experiment(stylegan2_first(c.inversion, *gan))


def published(file: Path) -> "Published":
    from jgen.recipes.inversion.published import encoder_file

    return encoder_file(file)


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS, published=published)
