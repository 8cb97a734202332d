"""Frozen dataclasses that experiments compose. Plain values: importing this does not import jax."""

from jgen.config.chain import ChainConfig
from jgen.config.data import DataConfig
from jgen.config.gan import AugmentConfig, GANConfig, GrowthConfig, StyleConfig, StyleSampling
from jgen.config.ranges import (
    Count,
    Flat,
    Inline,
    Natural,
    NonNegative,
    Positive,
    Range,
    Seed,
    Share,
    ShareBelowOne,
    Traced,
    check,
    leaves,
)
from jgen.config.sampling import Bound, DiffusionSampling, Editing, Guidance, LabelSampling
from jgen.config.train import AdamWConfig, Evaluation, MeshConfig, OptimizerConfig, TrainConfig, paper_steps
from jgen.config.unet import LabelConfig, LevelsConfig, UNetConfig
from jgen.config.values import changed, differences, from_dict, newest_run, to_dict

__all__ = [
    "AdamWConfig", "AugmentConfig", "Bound", "ChainConfig", "Count", "DataConfig", "DiffusionSampling", "Editing",
    "Evaluation", "Flat", "GANConfig", "GrowthConfig", "Guidance", "Inline", "LabelConfig", "LabelSampling", "LevelsConfig",
    "MeshConfig", "Natural", "NonNegative", "OptimizerConfig", "Positive", "Range", "Seed", "Share", "ShareBelowOne",
    "StyleConfig", "StyleSampling", "Traced", "TrainConfig", "UNetConfig", "changed", "check", "differences", "from_dict",
    "leaves", "newest_run", "paper_steps", "to_dict",
]  # fmt: skip
