"""EDM: the design space of diffusion models (Karras et al. 2022, arXiv:2206.00364).

    python -m experiments.edm                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.edm --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.edm --preset cifar10           # the paper's network and steps, for accelerators

Target of the cifar10 preset: FID 1.97 unconditional, 1.79 conditional (paper, table 2), with 35 network calls. The paper
trained 200 million images with a 55.7 M parameter DDPM++: about two days on 8 V100. Their augmentation, of which the network is
told, is --augment 0.12, which the preset has; --augment 0 ends its mirroring too.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import jgen
from experiments._continuous import Continuous
from experiments._diffusion import FASHION_MNIST, Knobs, song_knobs, song_unet
from experiments._sampling import Solver
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.edm import DhariwalUNet, SongUNet


@dataclass(frozen=True)
class Config(Knobs):
    sampling: Solver = Solver()
    network: Literal["ddpmpp", "ncsnpp", "adm"] = "ddpmpp"
    attention: tuple[int, ...] = (4,)
    """Levels with attention, in pixels."""
    sigma_data: float = 0.5
    """Standard deviation of the pixels."""
    mean: float = -1.2
    """Of the logarithm of the levels that are trained on"""
    deviation: float = 1.2
    """and its standard deviation."""
    sigma_min: float = 0.002
    """Levels of sampling: from sigma_max down to this one."""
    sigma_max: float = 80.0
    augment: float = 0.0
    """Probability of each of the paper's geometric augmentations, of which the network is told. Half of the images are
    mirrored, unless it is 0."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(**{**FASHION_MNIST, "attention": (7,)}),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=512),
        train=TrainConfig(steps=390_625, log_every=100, save_every=5_000, sample_every=10_000),
        channels=128,
        channel_mult=(2, 2, 2),
        num_res_blocks=4,
        attention=(16,),
        dropout=0.13,
        learning_rate=1e-3,
        warmup=19_531,
        final_learning_rate=1.0,
        clip=0.0,
        ema=0.99929,  # half-life of 500,000 images
        augment=0.12,
    ),
}


def network(config: Config) -> "SongUNet | DhariwalUNet":
    from jgen.models.edm import DhariwalUNet
    from jgen.objectives.edm_augment import TOLD

    told = TOLD if config.augment else 0
    if config.network == "adm":
        return DhariwalUNet(**song_knobs(config, config.attention), augment=told)
    return replace(song_unet(config, config.network, config.attention), augment=told)


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment
    from jgen.objectives import edm, edm_augment

    if not 0 <= config.augment <= 1:
        raise UserError(f"augment={config.augment}: must be a probability, from 0 to 1")
    config = replace(config, data=resolve(config.data))
    form = edm.edm(config.sigma_data)
    trained_on = edm.edm_levels(config.mean, config.deviation, config.sigma_data)
    ends = (config.sigma_min, config.sigma_max)
    augment = partial(edm_augment.augmented, p=config.augment) if config.augment else None
    return Experiment([Continuous(config, network(config), form, trained_on, ends, augment=augment).stage("edm")])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
