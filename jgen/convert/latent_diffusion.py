"""Weights of latent diffusion (CompVis): first stages, the U-Net with cross-attention, and taming's PatchGAN."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert import adm
from jgen.convert.common import Path, fill, linen_path, param_shapes, to_linen
from jgen.models.autoencoder import AutoencoderKL, VQModel
from jgen.models.patchgan import PatchGAN
from jgen.models.unet import UNet

Weights = Mapping[str, np.ndarray]


def autoencoder_kl(weights: Weights, *, ddconfig: Mapping[str, Any], embed_dim: int, **_: Any) -> tuple[AutoencoderKL, dict]:
    """The first stage and its {"params": ...} from the reference's names and constructor arguments."""
    net = AutoencoderKL(**_fields(ddconfig, embed_dim))
    return net, _first_stage(net, weights, ddconfig)


def vq_model(weights: Weights, *, ddconfig: Mapping[str, Any], embed_dim: int, n_embed: int, **_: Any) -> tuple[VQModel, dict]:
    """As `autoencoder_kl`; its codebook is a parameter."""
    net = VQModel(**_fields(ddconfig, embed_dim), codes=n_embed)
    return net, _first_stage(net, weights, ddconfig)


def unet(weights: Weights, *, context_dim: int, transformer_depth: int = 1, **config: Any) -> tuple[UNet, dict[str, Any]]:
    """The U-Net with cross-attention to a context [B, tokens, context_dim]."""
    config.pop("use_spatial_transformer", None)
    return adm.unet(weights, transformer_depth=transformer_depth, context_dim=context_dim, **config)


def patchgan(weights: Weights, *, ndf: int = 64, n_layers: int = 3, input_nc: int = 3, **_: Any) -> tuple[PatchGAN, dict]:
    """The discriminator and its variables, running statistics included."""
    net = PatchGAN(ndf, n_layers)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 64, 64, input_nc)), train=False))
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


def _fields(ddconfig: Mapping[str, Any], embed_dim: int) -> dict[str, Any]:
    mult: Sequence[int] = ddconfig["ch_mult"]
    levels = {ddconfig["resolution"] >> i: i for i in range(len(mult))}
    return dict(
        image_channels=ddconfig["out_ch"],
        z_channels=ddconfig["z_channels"],
        embed=embed_dim,
        channels=ddconfig["ch"],
        channel_mult=tuple(mult),
        num_res_blocks=ddconfig["num_res_blocks"],
        attention=tuple(levels[r] for r in ddconfig["attn_resolutions"]),
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
