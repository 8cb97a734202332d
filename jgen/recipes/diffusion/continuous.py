"""Diffusion in continuous coordinates, which EDM and flow matching share: the model and its stage of training."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jgen.config import DataConfig, DiffusionSampling, LabelConfig, LevelsConfig, OptimizerConfig, TrainConfig, UNetConfig
from jgen.config.edm import EDMConfig
from jgen.config.unet import NetworkName
from jgen.objectives import edm, edm_augment
from jgen.recipes.diffusion.evaluation import loss_by_level
from jgen.recipes.diffusion.model import NoiseLevels, continuous_model
from jgen.recipes.diffusion.networks import (
    check_plain_labels,
    class_conditioning,
    dhariwal_unet,
    image_network,
    num_labels,
    song_unet,
    supported,
)
from jgen.recipes.diffusion.stage import apply_fn, diffusion_stage, init_fn, network_fn
from jgen.train.stage import Stage
from jgen.types import Array, Key, LossFn

Augment = Callable[[Key, Array], tuple[Array, Array]]


def continuous_stage(
    name: str, data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig, sampling: DiffusionSampling,
    labels: LabelConfig, *, net: nn.Module, precondition: edm.Precondition, trained: edm.Levels, levels: NoiseLevels,
    augment: Augment | None = None, supports: tuple[str, ...] = ("dtype",),
) -> Stage:  # fmt: skip
    """The stage of a network of the continuous coordinates; trained: the levels that it is trained on, levels: of sampling.

    augment: as of `jgen.objectives.edm.denoising`, of a network that takes augmentation labels.
    """
    apply, conditioning = apply_fn(net), class_conditioning(data, labels)
    classes = data.num_classes if labels.conditional else 0
    model = continuous_model(data.shape, network_fn(apply), precondition, levels, conditioning=conditioning, classes=classes)

    def objective(train: bool) -> LossFn:
        return edm.denoising(apply, precondition, trained, conditioning=conditioning, train=train, augment=augment)

    ends = levels.sigma_min, levels.sigma_max
    return diffusion_stage(
        name, data, train, optimizer, sampling,
        model=model,
        init=init_fn(net, data.shape, bool(classes), edm_augment.LABELS if augment else 0),
        objective=objective,
        evaluate=loss_by_level(network_fn(apply), precondition, trained.weight, conditioning, ends),
        supports=supports,
    )  # fmt: skip


def edm_stage(
    network: LevelsConfig, own: EDMConfig, labels: LabelConfig, data: DataConfig, train: TrainConfig,
    optimizer: OptimizerConfig, sampling: DiffusionSampling,
) -> Stage:  # fmt: skip
    """EDM's stage of training: DDPM++, NCSN++ or ADM, preconditioned, with log-normal levels."""
    augmented = edm_augment.LABELS if own.augment else 0
    classes = data.num_classes if num_labels(data, labels) else 0
    check_plain_labels(labels, own.network)
    how = (network, train, data, own.attention, classes, augmented)
    net = dhariwal_unet(*how) if own.network == "adm" else song_unet(own.network, *how)
    return continuous_stage(
        "edm", data, train, optimizer, sampling, labels,
        net=net,
        precondition=edm.edm(own.sigma_data),
        trained=edm.edm_levels(own.mean, own.deviation, own.sigma_data),
        levels=NoiseLevels(own.sigma_min, own.sigma_max),
        augment=partial(edm_augment.augmented, p=own.augment) if own.augment else None,
    )  # fmt: skip


def flow_times(steps: int, sigma_max: float) -> np.ndarray:
    """Noise levels [steps + 1] evenly spaced in the path's time t = sigma / (1 + sigma), from sigma_max down to 0."""
    t = np.linspace(sigma_max / (1 + sigma_max), 0, steps + 1)
    return t / (1 - t)


FLOW_LEVELS = NoiseLevels(0.01, 200.0, "karras", flow_times)
"""Levels of sampling, t / (1 - t): almost the whole path."""


def flow_stage(
    kind: NetworkName, network: UNetConfig, logit_normal: bool, labels: LabelConfig, data: DataConfig, train: TrainConfig,
    optimizer: OptimizerConfig, sampling: DiffusionSampling,
) -> Stage:  # fmt: skip
    """Flow matching's stage of training: a network whose output is the velocity along straight paths."""
    # Embeddings of the time are made for 0..1000; NCSN++'s Fourier features for its logarithm.
    noise = (lambda sigma: jnp.log(sigma / (1 + sigma))) if kind == "ncsnpp" else (lambda sigma: 1000 * sigma / (1 + sigma))
    form = replace(edm.flow(), noise=noise)
    return continuous_stage(
        "flow_matching", data, train, optimizer, sampling, labels,
        net=image_network(kind, network, labels, data, train),
        precondition=form,
        trained=edm.flow_levels(logit_normal=logit_normal),
        levels=FLOW_LEVELS,
        supports=supported(kind),
    )  # fmt: skip
