"""Weights of score_sde (Song et al. 2021) -> `jgen.models.ncsnpp.NCSNpp`, for the authors' NCSN++, DDPM++ and DDPM.

The arguments are the sections of the authors' configurations. The networks take and give what the authors' do: images in [0, 1]
unless `centered`, the noise level itself with Fourier features and else the number of a time step, and the result is divided by
the noise level where `scale_by_sigma` says so.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options, required
from jgen.errors import UserError
from jgen.models.ncsnpp import NCSNpp, Style
from jgen.nn.nonlinearity import NONLINEARITIES

Options = Mapping[str, Any]
SHAPE = ("nf", "ch_mult", "num_res_blocks", "attn_resolutions")
HEEDED = (*SHAPE, "dropout", "scale_by_sigma", "sigma_min", "sigma_max", "num_scales")
CHOICES: dict[str, tuple[Any, ...]] = {
    "nonlinearity": tuple(NONLINEARITIES),
    "embedding_type": ("fourier", "positional"),
    "resblock_type": ("biggan", "ddpm"),
    "progressive": ("none", "output_skip", "residual"),
    "progressive_input": ("none", "input_skip", "residual"),
    "progressive_combine": ("sum", "cat"),
}
"""Options that are names, which the authors read in any case."""
FLAGS = {name: (False, True) for name in ("resamp_with_conv", "conditional", "fir", "skip_rescale")}
FIXED: dict[str, tuple[Any, ...] | None] = {
    # The authors' code has no other normalization, attention or size of kernel than these.
    "normalization": ("GroupNorm",), "attention_type": ("ddpm",), "conv_size": (3,),
    # They belong to the start of training, to its schedule and its average.
    "init_scale": ANY, "ema_rate": ANY, "beta_min": ANY, "beta_max": ANY,
}  # fmt: skip
NCSNPP_ONLY = (
    "fir", "fir_kernel", "fourier_scale", "skip_rescale", "resblock_type", "embedding_type", "progressive", "progressive_input",
    "progressive_combine",
)  # fmt: skip
"""Options that the authors' DDPM does not read."""
DATA: dict[str, tuple[Any, ...] | None] = {
    "centered": (False, True), "dataset": ANY, "category": ANY, "random_flip": ANY, "uniform_dequantization": ANY,
    "tfrecords_path": ANY,
}  # fmt: skip
SECTIONS = {name: ANY for name in ("training", "sampling", "eval", "optim", "seed", "device")}
"""Sections that say nothing about the network."""


def ncsnpp(weights: Mapping[str, np.ndarray], *, model: Options, data: Options, **other: Any) -> tuple[NCSNpp, dict[str, Any]]:
    """NCSN++ or DDPM++ and its {"params": ...}.

    model, data: the sections of a configuration; other: its other sections, which change nothing here. Raises UserError for an
    option that the authors don't have, a value or a combination that jgen's network can't have, and weights that do not fit.
    """
    model, needed = (
        _lower(model),
        ("fir", "skip_rescale", "resblock_type", "progressive", "progressive_input", "embedding_type"),
    )
    fixed = {**FIXED, **CHOICES, **FLAGS, "name": ("ncsnpp",)}
    _check(model, data, other, (*HEEDED, "fir_kernel", "fourier_scale"), fixed, needed)
    fir, with_conv = model["fir"], model.get("resamp_with_conv", True)
    if fir and model["progressive"] == "residual":
        raise UserError("progressive=residual: not with fir=True, with which the authors' code fails")
    if fir and with_conv and model["resblock_type"] == "ddpm":
        raise UserError("resblock_type=ddpm: not with fir=True and resamp_with_conv=True, with which the authors' code fails")
    style = Style(
        nonlinearity=model.get("nonlinearity", "swish"),
        taps=tuple(model.get("fir_kernel", (1, 3, 3, 1))) if fir else (),
        rescale=model["skip_rescale"],
        dropout=model.get("dropout", 0.0),
    )
    net = NCSNpp(
        **_fields(model, data),
        style=style,
        embedding=model["embedding_type"],
        conditional=model.get("conditional", True),
        block=model["resblock_type"],
        output=model["progressive"],
        input=model["progressive_input"],
        combine=model.get("progressive_combine", "sum"),
        fourier_scale=model.get("fourier_scale", 16.0),
    )
    if not net.conditional:  # the authors' blocks have the layer that would hear the label, but do not use it
        weights = {name: array for name, array in weights.items() if ".Dense_0." not in name}
    return net, _variables(net, weights, data)


def ddpm(weights: Mapping[str, np.ndarray], *, model: Options, data: Options, **other: Any) -> tuple[NCSNpp, dict[str, Any]]:
    """DDPM's U-Net and its {"params": ...}, as `ncsnpp`; the authors build it alike whether conditional or not."""
    model = _lower(model)
    fixed = {**FIXED, **dict.fromkeys(NCSNPP_ONLY, ANY)}
    fixed |= {"nonlinearity": CHOICES["nonlinearity"], "conditional": ANY, "resamp_with_conv": (False, True), "name": ("ddpm",)}
    _check(model, data, other, HEEDED, fixed, ())
    style = Style(nonlinearity=model.get("nonlinearity", "swish"), groups=32, dropout=model.get("dropout", 0.0))
    net = NCSNpp(**_fields(model, data), style=style, embedding="positional", block="ddpm", input="none")
    return net, _variables(net, weights, data)


def _lower(model: Options) -> dict[str, Any]:
    return {name: str(value).lower() if name in CHOICES else value for name, value in model.items()}


def _check(
    model: Options, data: Options, other: Options, heeded: tuple[str, ...], fixed: Mapping[str, Any], needed: tuple[str, ...]
) -> None:
    check_options(other, (), SECTIONS, "score_sde's configurations")
    check_options(model, heeded, fixed, "score_sde's section model")
    check_options(data, ("image_size", "num_channels"), DATA, "score_sde's section data")
    scaled = ("sigma_min", "sigma_max", "num_scales") if model.get("scale_by_sigma") else ()
    required(model, (*SHAPE, "scale_by_sigma", *scaled, *needed), "score_sde's section model")
    required(data, ("image_size", "num_channels", "centered"), "score_sde's section data")


def _fields(model: Options, data: Options) -> dict[str, Any]:
    """The fields that the authors' networks have in common."""
    levels = {name: model[name] for name in ("sigma_min", "sigma_max", "num_scales") if name in model}
    return dict(
        out_channels=data["num_channels"],
        channels=model["nf"],
        channel_mult=tuple(model["ch_mult"]),
        num_res_blocks=model["num_res_blocks"],
        attention_resolutions=tuple(model["attn_resolutions"]),
        resample_conv=model.get("resamp_with_conv", True),
        centered=data["centered"],
        scale_by_sigma=model["scale_by_sigma"],
        **levels,
    )


def _path(name: str) -> Path:
    *path, leaf = linen_path(name.removeprefix("module."))
    if path and path[-1].startswith("NIN_"):
        leaf = {"W": "kernel", "b": "bias"}.get(leaf, leaf)
    return (*path, leaf)


def _variables(net: NCSNpp, weights: Mapping[str, np.ndarray], data: Options) -> dict[str, Any]:
    size = data["image_size"]
    shapes = param_shapes(net.init, jnp.zeros((1, size, size, data["num_channels"])), jnp.ones(1))
    # The table of noise levels is no parameter here.
    used = {name: array for name, array in weights.items() if name.removeprefix("module.") != "sigmas"}

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if name.endswith(".W") else to_linen(array, shape)  # theirs is [in, out]

    return {"params": fill(shapes, used, _path, layout)}
