"""The knobs that the GANs share: the label to sample of all, the rest of ProGAN and the StyleGANs."""

from dataclasses import dataclass
from typing import Any, Literal

from jgen.config import DataConfig, MeshConfig, TrainConfig


@dataclass(frozen=True)
class Labelled:
    label: int = -1
    """Class of all images; -1 draws one for each. For a conditional model."""


@dataclass(frozen=True)
class Sampling(Labelled):
    """Of a network with styles."""

    psi: float = 1.0
    """Truncation: 1 is without, 0 the mean image."""
    noise: Literal["gaussian", "none", "uniform", "salt_and_pepper", "perlin", "octaves", "simplex"] = "gaussian"
    """What the noise inputs are fed with."""


@dataclass(frozen=True)
class Shared:
    """Knobs of every GAN that works in powers of 2."""

    data: DataConfig = DataConfig("digits", batch_size=32)
    train: TrainConfig = TrainConfig(steps=2800, save_every=1400, sample_every=0)
    mesh: MeshConfig = MeshConfig()
    sampling: Labelled = Labelled()
    z_dim: int = 64
    channel_base: int = 256
    """Channels of a resolution are channel_base / side,"""
    channel_max: int = 32
    """but at most so many."""
    conditional: bool = False
    """Give both networks the class."""
    learning_rate: float = 2.5e-3
    """Of Adam, for both players."""
    ema_kimg: float = 2.0
    """Half-life of G's moving average in thousands of images,"""
    ema_rampup: float = 0.05
    """but at most this share of the images so far; 0 for no such limit."""
    augment: Literal["none", "ada", "diffaug"] = "none"
    """What D sees of reals and fakes: ada adapts its strength."""
    ada_target: float = 0.6
    """Mean sign of D's logits of reals at which ada's strength rests."""
    ada_kimg: float = 500.0
    """Thousands of images in which it could go from 0 to 1."""


@dataclass(frozen=True)
class Knobs(Shared):
    """Those of the StyleGANs besides."""

    sampling: Sampling = Sampling()
    w_dim: int = 64
    mapping_layers: int = 4
    mapping_lr_mul: float = 0.01
    """The mapping's learning rate as a share of the others'."""
    r1_gamma: float = 1.0
    """Weight of the R1 penalty; 0 for none."""
    r1_every: int = 8
    """Steps between R1 penalties."""
    path_weight: float = 0.0
    """Weight of path length regularisation; 0 for none."""
    path_every: int = 4
    """Steps between path length penalties."""
    mixing: float = 0.9
    """Probability of style mixing."""


@dataclass(frozen=True)
class Growing:
    """Those of a network that grows."""

    first_steps: int = 300
    """Steps at 4x4; train.steps are those at each larger resolution."""
    last_steps: int = 0
    """Steps at the full resolution; 0 for as many as at the others."""
    fade: float = 0.5
    """Share of a stage in which its level comes in."""


FASHION_MNIST: dict[str, Any] = dict(
    data=DataConfig("fashion_mnist", batch_size=32), channel_base=512, channel_max=64, ema_kimg=5.0
)
PAPER: dict[str, Any] = dict(z_dim=512, channel_base=16384, channel_max=512)
"""The papers' widths for up to 256x256."""
PAPER_STYLES: dict[str, Any] = dict(**PAPER, w_dim=512, mapping_layers=8)
