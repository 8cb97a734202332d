"""Weights of latent diffusion (CompVis): first stages, the U-Net with cross-attention, and taming's PatchGAN."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert import adm
from jgen.convert.common import Path, fill, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options, required
from jgen.errors import UserError
from jgen.models.autoencoder import AutoencoderKL, VQModel
from jgen.models.patchgan import PatchGAN
from jgen.models.unet import UNet

Weights = Mapping[str, np.ndarray]
DDCONFIG = ("z_channels", "resolution", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "attn_resolutions")
CHOICES: dict[str, tuple[Any, ...] | None] = {
    "dropout": ANY, "give_pre_end": (False,), "resamp_with_conv": (True, False), "tanh_out": (False, True),
    "use_linear_attn": (False, True), "attn_type": ("vanilla", "linear", "none"),
}  # fmt: skip
"""Other options of ddconfig, with the values that they have here, the default first; dropout is of training alone, and these
networks train without."""
TRAINING: dict[str, tuple[Any, ...] | None] = {
    "lossconfig": ANY, "ckpt_path": ANY, "ignore_keys": ANY, "image_key": ANY, "monitor": ANY, "scheduler_config": ANY,
    "batch_resize_range": ANY, "lr_g_factor": ANY, "use_ema": ANY, "base_learning_rate": ANY, "colorize_nlabels": (None,),
}  # fmt: skip
"""Options of the first stages' classes that say nothing about the network."""


def autoencoder_kl(
    weights: Weights, *, ddconfig: Mapping[str, Any], embed_dim: int, **other: Any
) -> tuple[AutoencoderKL, dict]:
    """The first stage and its {"params": ...} from the reference's names and constructor arguments.

    Raises UserError that names an argument which the reference doesn't have or which makes a network that jgen can't, and one
    that lists missing or left-over weights.
    """
    check_options(other, (), TRAINING, "AutoencoderKL")
    net = AutoencoderKL(**_fields(ddconfig, embed_dim, double_z=True))
    return net, _first_stage(net, weights, ddconfig)


def vq_model(
    weights: Weights, *, ddconfig: Mapping[str, Any], embed_dim: int, n_embed: int, **other: Any
) -> tuple[VQModel, dict]:
    """As `autoencoder_kl`; its codebook is a parameter. beta and legacy are of the loss, `jgen.objectives.first_stage`."""
    check_options(other, (), {**TRAINING, "beta": ANY, "legacy": ANY, "remap": (None,), "sane_index_shape": ANY}, "VQModel")
    net = VQModel(**_fields(ddconfig, embed_dim, double_z=False), codes=n_embed)
    return net, _first_stage(net, weights, ddconfig)


def unet(
    weights: Weights,
    *,
    use_spatial_transformer: bool | None = None,
    transformer_depth: int = 1,
    context_dim: int | None = None,
    legacy: bool = True,
    **config: Any,
) -> tuple[UNet, dict[str, Any]]:
    """The U-Net, with cross-attention to a context [B, tokens, context_dim] where use_spatial_transformer is true.

    Without use_spatial_transformer, context_dim says it. Raises UserError where they contradict each other, and as `adm.unet`.
    """
    attends = context_dim is not None if use_spatial_transformer is None else use_spatial_transformer
    if attends != (context_dim is not None):
        raise UserError(
            f"{use_spatial_transformer=}, {context_dim=}: a transformer needs the width of the context, others none"
        )
    if attends or not legacy:
        config["num_heads_upsample"] = -1  # there the reference takes the heads of the way down on both ways
    if attends:
        config |= {"transformer_depth": transformer_depth, "context_dim": context_dim}
    return adm.unet(weights, **config)


def patchgan(weights: Weights, *, ndf: int = 64, n_layers: int = 3, input_nc: int = 3, **other: Any) -> tuple[PatchGAN, dict]:
    """The discriminator and its variables, running statistics included; its norm is batch normalisation."""
    check_options(other, (), {"use_actnorm": (False,)}, "NLayerDiscriminator")
    net, side = PatchGAN(ndf, n_layers), 4 * 2**n_layers
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, side, side, input_nc)), train=False))
    running = {"running_mean": "mean", "running_var": "var"}
    kinds = {"params": {}, "batch_stats": {}}
    for name, array in weights.items():
        stem, kind = name.rsplit(".", 1)
        if kind in running:
            kinds["batch_stats"][f"{stem}.{running[kind]}"] = array
        elif kind != "num_batches_tracked":
            kinds["params"][name] = array

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return to_linen(array, shape)

    return net, {kind: fill(shapes[kind], found, linen_path, layout) for kind, found in kinds.items()}


def _fields(ddconfig: Mapping[str, Any], embed_dim: int, double_z: bool) -> dict[str, Any]:
    required(ddconfig, DDCONFIG, "ddconfig")
    check_options(ddconfig, DDCONFIG, {**CHOICES, "double_z": (double_z,)}, "ddconfig")
    mult: Sequence[int] = ddconfig["ch_mult"]
    levels = {ddconfig["resolution"] >> i: i for i in range(len(mult))}
    return dict(
        image_channels=ddconfig["out_ch"],
        z_channels=ddconfig["z_channels"],
        embed=embed_dim,
        channels=ddconfig["ch"],
        channel_mult=tuple(mult),
        num_res_blocks=ddconfig["num_res_blocks"],
        attention=tuple(levels[r] for r in ddconfig["attn_resolutions"] if r in levels),
        attention_kind="linear" if ddconfig.get("use_linear_attn") else ddconfig.get("attn_type", "vanilla"),
        resample_conv=ddconfig.get("resamp_with_conv", True),
        tanh=ddconfig.get("tanh_out", False),
    )


def _first_stage(net: AutoencoderKL | VQModel, weights: Weights, ddconfig: Mapping[str, Any]) -> dict[str, Any]:
    side = ddconfig["resolution"]
    shapes = param_shapes(net.init, jnp.zeros((1, side, side, ddconfig["in_channels"])))

    def path(name: str) -> Path:
        if name == "quantize.embedding.weight":
            return ("codebook",)
        parts = linen_path(name)
        if parts[0] not in ("encoder", "decoder") or parts[1].startswith(("conv_", "norm_")):
            return parts
        return (parts[0], f"{parts[1]}_{parts[2]}", *parts[3:]) if parts[2] not in ("downsample", "upsample") else (
            parts[0], "_".join(parts[1:4]), *parts[4:]
        )  # fmt: skip

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if name == "quantize.embedding.weight" else to_linen(array, shape)

    used = {k: v for k, v in weights.items() if k.split(".")[0] not in ("loss", "model_ema")}
    return {"params": fill(shapes, used, path, layout)}
