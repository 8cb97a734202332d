"""Weights of brownvc/R3GAN -> `jgen.models.gan.r3gan`. The arguments are those of the authors' constructors."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, to_linen
from jgen.convert.options import check_options, required
from jgen.errors import UserError
from jgen.models.gan.r3gan import BASE, Discriminator, Generator, resampling_kernel

Weights = Mapping[str, np.ndarray]
STAGES = ("WidthPerStage", "CardinalityPerStage", "BlocksPerStage", "ExpansionFactor")
OPTIONAL = ("ConditionDimension", "ConditionEmbeddingDimension", "KernelSize", "ResamplingFilter")


def generator(weights: Weights, **options: Any) -> tuple[Generator, dict[str, Any]]:
    """The generator and its {"params": ...}.

    Raises UserError that names an argument which the constructor doesn't have or lacks, and one that lists missing or
    left-over weights.
    """
    common = _common(weights, options, ("NoiseDimension", *STAGES), "R3GAN's Generator")
    channels = _rows(weights, "AggregationLayer.Layer.weight")
    net = Generator(channels=channels, z_dim=options["NoiseDimension"], **common)
    return net, _filled(net, weights, jnp.zeros((1, net.z_dim)))


def discriminator(weights: Weights, **options: Any) -> tuple[Discriminator, dict[str, Any]]:
    """The discriminator and its {"params": ...}, as `generator`."""
    net = Discriminator(**_common(weights, options, STAGES, "R3GAN's Discriminator"))
    name = "ExtractionLayer.Layer.weight"
    side, channels = BASE << len(net.widths) - 1, weights[name].shape[1] if name in weights else 3
    return net, _filled(net, weights, jnp.zeros((1, side, side, channels)))


def _rows(weights: Weights, name: str) -> int:
    return len(weights[name]) if name in weights else 3


def _common(weights: Weights, options: Mapping[str, Any], needed: Sequence[str], where: str) -> dict[str, Any]:
    """The fields that both networks have. Raises UserError for a resampler's kernel of other taps than those given."""
    check_options(options, (*needed, *OPTIONAL), {}, where)
    required(options, needed, where)
    taps = tuple(options.get("ResamplingFilter", (1, 2, 1)))
    want = resampling_kernel(taps)
    for name, found in weights.items():
        if name.endswith(".Resampler.Kernel") and (found.shape != want.shape or np.abs(found - want).max() > 1e-6):
            raise UserError(f"ResamplingFilter={list(taps)}: the weights have another one, {name}")
    return {
        "widths": tuple(options["WidthPerStage"]),
        "groups": tuple(options["CardinalityPerStage"]),
        "blocks": tuple(options["BlocksPerStage"]),
        "expansion": options["ExpansionFactor"],
        "classes": options.get("ConditionDimension") or 0,
        "embedding": options.get("ConditionEmbeddingDimension") or 0,
        "size": options.get("KernelSize", 3),
        "taps": taps,
    }


NAMES = {
    "LinearLayer1.Layer.weight": ("expand", "kernel"),
    "LinearLayer2.Layer.weight": ("kernel",),
    "LinearLayer3.Layer.weight": ("contract", "kernel"),
    "NonLinearity1.Bias": ("bias1",),
    "NonLinearity2.Bias": ("bias2",),
    "LinearLayer.Layer.weight": ("linear", "kernel"),
    "LinearLayer.weight": ("linear", "kernel"),
    "Basis": ("basis",),
    "Basis.weight": ("basis",),
}
ENDS = {
    "AggregationLayer.Layer.weight": ("rgb", "kernel"),
    "ExtractionLayer.Layer.weight": ("rgb", "kernel"),
    "EmbeddingLayer.weight": ("embed", "kernel"),
}


def path_of(name: str) -> Path:
    """The path of an official parameter."""
    found = re.fullmatch(r"MainLayers\.(\d+)\.Layers\.(\d+)\.(.*)", name)
    if found and found[3] in NAMES:
        return (f"stage{found[1]}_{found[2]}", *NAMES[found[3]])
    return ENDS.get(name, (name,))


def _filled(net: nn.Module, weights: Weights, x: Any) -> dict[str, Any]:
    classes = getattr(net, "classes")  # noqa: B009
    label = [jnp.zeros((1, classes))] if classes else []
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x, *label))["params"]
    used = {k: v for k, v in weights.items() if not k.endswith(".Resampler.Kernel")}

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if path_of(name)[-1] == "basis":  # [C, 4, 4] of G, [C, 1, 4, 4] of D
            return array.reshape(len(array), BASE, BASE).transpose(1, 2, 0)
        return to_linen(array, shape)

    return {"params": fill(shapes, used, path_of, layout)}
