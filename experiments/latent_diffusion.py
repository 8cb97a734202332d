"""Latent diffusion (Rombach et al. 2022, arXiv:2112.10752), with a U-Net or a DiT (Peebles & Xie 2022, arXiv:2212.09748).

    python -m experiments.latent_diffusion                            # digits, 8x8: 3 to 4 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --first vq --prior dit     # codes rather than a KL, a transformer
    python -m experiments.latent_diffusion --condition class
    python -m experiments.latent_diffusion --preset glyphs            # from captions: minutes to hours, as long as you let it
    python -m experiments.latent_diffusion --preset glyphs --data.captions minilm     # captions as features of MiniLM
    python -m experiments.latent_diffusion sample --prompt "a red A on blue"
    python -m experiments.latent_diffusion evaluate --num 1024        # how often captions or classes are obeyed
    python -m experiments.latent_diffusion --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --preset imagenet256       # DiT-XL/2, for accelerators

Two stages, one command: the autoencoder, then the diffusion of its latents; --train.begin-from RUN/autoencoder takes that of
an earlier run, for another prior. Target of the imagenet256 preset: FID 2.27 with guidance 1.5 (DiT, table 2), after 7 million
steps of 256 images (50,000 samples against ADM's reference batch). DiT's autoencoder is Stability's; the preset trains
one of its own by latent diffusion's settings, measures the scale of its latents, and is to be given LPIPS's files
(--perceptual-trunk, --perceptual-heads). Of four latent channels DiT's authors guide three, and jgen all.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import jgen
from jgen.config import ChainConfig, DataConfig, Flat, Guidance, MeshConfig, OptimizerConfig, TrainConfig, UNetConfig
from jgen.config.autoencoder import FirstStageConfig
from jgen.config.latent import LatentSampling, PriorConfig
from jgen.config.samplers import DDPM

if TYPE_CHECKING:
    from jgen.train.stage import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=400, log_every=10, save_every=200, sample_every=200)
    """Training of the autoencoder."""
    mesh: MeshConfig = MeshConfig()
    sampling: LatentSampling = LatentSampling()
    first: Flat[FirstStageConfig] = FirstStageConfig()
    first_optimizer: OptimizerConfig = OptimizerConfig(2e-3, warmup=100, final_learning_rate=0.1, clip=1.0, ema=0.998)
    prior: Flat[PriorConfig] = PriorConfig()
    network: Flat[UNetConfig] = UNetConfig(attention=(1,), head_channels=0)
    chain: Flat[ChainConfig] = ChainConfig("cosine", prediction="v")
    optimizer: Flat[OptimizerConfig] = OptimizerConfig()


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500),
        first=FirstStageConfig(first_mult=(1, 2, 2)),
        prior=PriorConfig(prior_steps=4000),
        network=UNetConfig(96, (1,), num_res_blocks=2, attention=(1,), head_channels=0),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=2000, log_every=10, save_every=500, sample_every=500),
        first=FirstStageConfig(first_mult=(1, 2, 2), pixel_loss="l2"),
        prior=PriorConfig(prior_steps=4000, condition="text"),
        network=UNetConfig(96, (1, 2), attention=(1,), head_channels=0),
        optimizer=OptimizerConfig(learning_rate=1e-3),
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=256, resolution=256, resize="adm", flip=True),
        train=TrainConfig(steps=250_000, log_every=100, save_every=10_000, sample_every=10_000),
        sampling=LatentSampling(DDPM(250, variance="learned_range"), guide=Guidance(1.5)),
        first=FirstStageConfig(
            first_channels=128,
            first_mult=(1, 2, 4, 4),
            first_blocks=2,
            first_attention=False,
            kl_weight=1e-6,
            adversarial=0.5,
            adversarial_from=50_001,
            perceptual=1.0,
        ),
        first_optimizer=OptimizerConfig(
            256 * 4.5e-6, warmup=0, final_learning_rate=1.0, clip=0.0, beta_1=0.5, beta_2=0.9, ema=0.0
        ),
        prior=PriorConfig(7_000_000, prior="dit", learn_variance=True, condition="class", patch=2, depth=28, width=1152),
        chain=ChainConfig("linear"),
        optimizer=OptimizerConfig(1e-4, warmup=0, final_learning_rate=1.0, clip=0.0, ema=0.9999),
    ),
}


def build(config: Config) -> "Experiment":
    from jgen.recipes.common import Experiment, resolved
    from jgen.recipes.diffusion.latent import latent_stages

    c = resolved(config)
    trained = (c.data, c.train, c.first_optimizer, c.optimizer, c.sampling)
    return Experiment(latent_stages(c.first, c.prior, c.network, c.chain, *trained))


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
