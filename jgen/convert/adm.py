"""Weights of guided-diffusion and improved-diffusion (openai) -> `jgen.models.unet`.

The arguments are those of the reference constructors. Attention resolutions are downsampling factors, as there. The
query/key/value channels stand as [head, 3, c] in the legacy order and as [3, head, c] in the new one; jgen always has
the latter, so the former is rearranged here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, linen_path, param_shapes, to_linen
from jgen.errors import UserError, nearest
from jgen.models.unet import Classifier, SuperResUNet, UNet
from jgen.nn.attention import heads_of


def unet(weights: Mapping[str, np.ndarray], **config: Any) -> tuple[UNet, dict[str, Any]]:
    """The U-Net and its {"params": ...} from the reference's names and constructor arguments.

    Raises UserError that lists missing or left-over weights. `in_channels` is that of the image.
    """
    net = UNet(**_fields(**config))
    return net, variables_of(net, weights, config, {})


def super_res(weights: Mapping[str, np.ndarray], **config: Any) -> tuple[SuperResUNet, dict[str, Any]]:
    """As `unet`, for SuperResModel: `in_channels` is that of the noisy image alone."""
    net = SuperResUNet(**_fields(**config))
    low_res = jnp.zeros((1, 2, 2, config["in_channels"]))
    return net, variables_of(net, weights, config, {"low_res": low_res})


def classifier(weights: Mapping[str, np.ndarray], pool: str = "attention", **config: Any) -> tuple[Classifier, dict]:
    """As `unet`, for EncoderUNetModel with any of its pools: attention, adaptive, spatial, spatial_v2."""
    net = Classifier(**_fields(**config), pool=pool)
    return net, variables_of(net, weights, config, {})


# Arguments of the published configs that change no number here: (the values there are).
WITHOUT_EFFECT: dict[str, tuple[Any, ...]] = {
    "use_checkpoint": (False, True),
    "use_fp16": (False, True),
    "dims": (2,),
    "n_embed": (None,),
}


def _fields(
    *,
    in_channels: int,
    model_channels: int,
    out_channels: int,
    num_res_blocks: int,
    attention_resolutions: Sequence[int],
    channel_mult: Sequence[float] = (1, 2, 4, 8),
    num_classes: int | None = None,
    num_heads: int = 1,
    num_head_channels: int = -1,
    num_heads_upsample: int = -1,
    conv_resample: bool = True,
    use_scale_shift_norm: bool = False,
    resblock_updown: bool = False,
    dropout: float = 0.0,
    use_new_attention_order: bool = False,
    image_size: int | None = None,
    transformer_depth: int = 0,
    context_dim: int | None = None,
    **other: Any,
) -> dict[str, Any]:
    """The fields of jgen's network; use_new_attention_order, image_size and context_dim matter to layouts and shapes alone.

    num_heads_upsample is of the way up alone, and like num_heads without effect where num_head_channels is given.

    Raises UserError for an argument that the reference constructors don't have, or a value that jgen's network can't have.
    """
    for name, value in other.items():
        if name not in WITHOUT_EFFECT:
            close = nearest(name, [*WITHOUT_EFFECT, *_fields.__annotations__])
            raise UserError(f"{name}: no argument of the reference constructors{close}")
        if value not in WITHOUT_EFFECT[name]:
            raise UserError(f"{name}={value}: must be {' or '.join(map(str, WITHOUT_EFFECT[name]))} here")
    return dict(
        channels=model_channels,
        out_channels=out_channels,
        num_res_blocks=num_res_blocks,
        channel_mult=tuple(channel_mult),
        attention_resolutions=tuple(attention_resolutions),
        num_classes=num_classes or 0,
        num_heads=num_heads,
        head_channels=None if num_head_channels == -1 else num_head_channels,
        up_heads=None if num_heads_upsample == -1 else num_heads_upsample,
        conv_resample=conv_resample,
        scale_shift_norm=use_scale_shift_norm,
        resblock_updown=resblock_updown,
        dropout=dropout,
        transformer_depth=transformer_depth,
    )


def _path(name: str) -> Path:
    path = linen_path(name)
    # A resampling convolution is one Linen module, where the reference wraps it in a module of its own.
    if len(path) > 1 and path[1] in ("op", "conv"):
        return (f"{path[0]}_{path[1]}", *path[2:])
    # So is a feed-forward layer of a transformer, and the like.
    if len(path) > 2 and path[1].startswith("transformer_blocks"):
        return (path[0], path[1], "_".join(path[2:-1]), path[-1]) if path[2] == "ff" else path
    return path


def variables_of(net: Any, weights: Mapping[str, np.ndarray], config: Mapping[str, Any], inputs: dict) -> dict[str, Any]:
    """{"params": ...} of a network of `jgen.models.unet` from guided-diffusion's names."""
    size = config.get("image_size") or 2 ** len(net.channel_mult)
    x, t = jnp.zeros((1, size, size, config["in_channels"])), jnp.zeros((1,))
    labels = {"class": jnp.zeros((1,), jnp.int32), "time": jnp.zeros((1,)), "vector": jnp.zeros((1, 4 * net.channels))}
    label = {"label": labels[net.label_as]} if net.num_classes else {}
    if "context_dim" in config:
        inputs = {**inputs, "context": jnp.zeros((1, 1, config["context_dim"]))}
    legacy, up_heads = not config.get("use_new_attention_order", False), net.up_heads or net.num_heads

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if ".qkv." in name and legacy:
            count = up_heads if name.startswith("output_blocks.") else net.num_heads
            heads = heads_of(array.shape[0] // 3, count, net.head_channels)
            grouped = array.reshape(heads, 3, -1, *array.shape[1:])
            array = grouped.swapaxes(0, 1).reshape(array.shape)
        return array if "_embedding" in name or name == "label_emb.weight" else to_linen(array, shape)

    return {"params": fill(param_shapes(net.init, x, t, **label, **inputs), weights, _path, layout)}
