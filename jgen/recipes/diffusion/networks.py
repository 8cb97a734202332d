"""The networks of diffusion and score models, by their config groups."""

from collections.abc import Sequence
from typing import Any, Literal

import flax.linen as nn
import jax.numpy as jnp

from jgen.config import DataConfig, LabelConfig, LevelsConfig, TrainConfig, UNetConfig
from jgen.config.unet import NetworkName
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.models.edm import DhariwalUNet, SongUNet
from jgen.models.unet import UNet
from jgen.nn.norm import groups_of
from jgen.objectives.conditioning import UNCONDITIONAL, Conditioning, by_label


def check_levels(config: LevelsConfig) -> None:
    """Raises UserError for a U-Net without levels."""
    if not config.channel_mult:
        raise UserError("channel_mult: must have a number of 1 or more for each level")


def class_conditioning(data: DataConfig, labels: LabelConfig) -> Conditioning:
    """The conditions of a model of images by their classes. Raises UserError where there are none, or none to leave out."""
    if labels.drop_label and not labels.conditional:
        raise UserError(f"drop_label={labels.drop_label}: only a conditional model has labels to leave out")
    if labels.label_std and not labels.conditional:
        raise UserError(f"label_std={labels.label_std}: only a conditional model has labels")
    classes = classes_of(data, labels.conditional)
    return by_label(classes, labels.drop_label) if classes else UNCONDITIONAL


def num_labels(data: DataConfig, labels: LabelConfig) -> int:
    """Labels that the network knows: the classes, and with drop_label one for none. 0 for an unconditional one."""
    return classes_of(data, labels.conditional) + (labels.drop_label > 0)


def unet(config: UNetConfig, train: TrainConfig, out_channels: int, num_classes: int, **more: Any) -> UNet:
    """ADM's U-Net; num_classes: labels that it knows, 0 for an unconditional one."""
    check_levels(config)
    groups = groups_of(config.channels)  # with a group a channel, normalisation would cancel what the time embedding adds
    if any(int(each * config.channels) % groups for each in (1, *config.channel_mult)):
        shown = " ".join(map(str, config.channel_mult))
        raise UserError(
            f"channels={config.channels}, channel_mult={shown}: must be multiples of {groups}, as many as the norms have groups"
        )
    return UNet(
        channels=config.channels,
        out_channels=out_channels,
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        attention_resolutions=config.attention,
        num_classes=num_classes,
        head_channels=config.head_channels or None,
        scale_shift_norm=config.scale_shift_norm,
        resblock_updown=config.resblock_updown,
        dropout=config.dropout,
        groups=groups,
        dtype=jnp.dtype(train.dtype),
        remat=train.remat,
        **more,
    )


def _edm_levels(config: LevelsConfig, train: TrainConfig, data: DataConfig, attention: Sequence[int], classes: int) -> Any:
    """Arguments that the networks of `jgen.models.edm` share; attention: sides in pixels."""
    check_levels(config)
    return dict(
        out_channels=data.shape[-1],
        channels=config.channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_res_blocks,
        attention_resolutions=tuple(attention),
        dropout=config.dropout,
        classes=classes,  # these networks take no class as zeros, not as one more
        dtype=jnp.dtype(train.dtype),
    )


def song_unet(
    kind: Literal["ddpmpp", "ncsnpp"],
    config: LevelsConfig,
    train: TrainConfig,
    data: DataConfig,
    attention: Sequence[int],
    classes: int,
    augment: int = 0,
) -> SongUNet:
    """DDPM++ or NCSN++ (Song et al. 2021); attention: sides in pixels; augment: augmentation labels that it takes."""
    fourier = dict(embedding="fourier", channel_mult_noise=2, encoder="residual", taps=(1, 3, 3, 1))
    more: dict[str, Any] = fourier if kind == "ncsnpp" else {}
    return SongUNet(**_edm_levels(config, train, data, attention, classes), augment=augment, **more)


def image_network(
    kind: NetworkName, config: UNetConfig, labels: LabelConfig, data: DataConfig, train: TrainConfig
) -> nn.Module:
    """The network of a kind, (x, time or level [B], label) -> as many channels as x; attention is by downsampling factors."""
    if kind == "unet":
        return unet(config, train, data.shape[-1], num_labels(data, labels), label_std=labels.label_std)
    check_plain_labels(labels, kind)
    attention = [data.shape[0] // factor for factor in config.attention]
    return song_unet(kind, config, train, data, attention, data.num_classes if labels.conditional else 0)


def check_plain_labels(labels: LabelConfig, kind: str) -> None:
    """Raises UserError for a setting of labels that networks other than ADM's U-Net do not have."""
    if labels.label_std:
        raise UserError(f"label_std={labels.label_std}: {kind} has no such setting; take 0")


def supported(kind: NetworkName) -> tuple[str, ...]:
    """The settings of training that a network of a kind heeds."""
    return ("dtype", "remat") if kind == "unet" else ("dtype",)


def dhariwal_unet(
    config: LevelsConfig, train: TrainConfig, data: DataConfig, attention: Sequence[int], classes: int, augment: int = 0
) -> DhariwalUNet:
    """ADM as EDM's authors train it; attention: sides in pixels; augment: augmentation labels that it takes."""
    return DhariwalUNet(**_edm_levels(config, train, data, attention, classes), augment=augment)
