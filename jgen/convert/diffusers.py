"""diffusers' UNet2DModel in DDPM's configuration -> `jgen.models.unet.UNet`, by renaming."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jgen.convert.adm import variables_of
from jgen.convert.common import join_qkv
from jgen.errors import UserError
from jgen.models.unet import UNet

BLOCKS = {"DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True}
RES = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


# Names of attention weights in the first releases, and today's.
FORMER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
# Options that could make another network, and the values at which they do not; others say nothing of the network.
PLAIN: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "add_attention": (True,),
    "attn_norm_num_groups": (None,),
    "center_input_sample": (False,),
    "class_embed_type": (None,),
    "downsample_type": ("conv",),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "num_class_embeds": (None,),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv",),
}


def _today(name: str) -> str:
    """The name of a weight as diffusers has it today."""
    return ".".join(FORMER.get(part, part) if ".attentions." in name else part for part in name.split("."))


def unet2d(
    weights: Mapping[str, np.ndarray],
    *,
    in_channels: int = 3,
    out_channels: int = 3,
    layers_per_block: int = 2,
    block_out_channels: Sequence[int],
    down_block_types: Sequence[str],
    up_block_types: Sequence[str],
    norm_num_groups: int = 32,
    norm_eps: float = 1e-5,
    attention_head_dim: int | None = 8,
    downsample_padding: int = 1,
    flip_sin_to_cos: bool = True,
    freq_shift: float = 0,
    resnet_time_scale_shift: str = "default",
    **other: Any,
) -> tuple[UNet, dict[str, Any]]:
    """The network and its {"params": ...} from diffusers' names and config, of today or as in its first releases.

    Raises UserError for blocks of other kinds, for options that make another network, and for weights that do not fit.
    """
    for name, value in other.items():
        if name in PLAIN and value not in PLAIN[name]:
            raise UserError(f"{name}={value}: must be {' or '.join(map(str, PLAIN[name]))} here")
    unknown = sorted({*down_block_types, *up_block_types} - set(BLOCKS))
    if unknown:
        raise UserError(f"{unknown[0]}: blocks must be among {', '.join(BLOCKS)}")
    width = block_out_channels[0]
    net = UNet(
        channels=width,
        out_channels=out_channels,
        num_res_blocks=layers_per_block,
        channel_mult=tuple(c // width for c in block_out_channels),
        attention_resolutions=tuple(2**i for i, kind in enumerate(down_block_types) if BLOCKS[kind]),
        head_channels=attention_head_dim,
        scale_shift_norm=resnet_time_scale_shift == "scale_shift",
        groups=norm_num_groups,
        epsilon=norm_eps,
        asymmetric=downsample_padding == 0,
        time_endpoint=bool(freq_shift),
    )
    renamed = {}
    for name, array in join_qkv({_today(name): array for name, array in weights.items()}).items():
        new = _name(name, len(block_out_channels), layers_per_block, up_block_types)
        if name == "time_embedding.linear_1.weight" and not flip_sin_to_cos:
            array = np.roll(array, array.shape[1] // 2, axis=1)  # sines come first there, cosines here
        renamed[new] = array
    size = 2 ** len(block_out_channels)
    config = dict(image_size=size, in_channels=in_channels, use_new_attention_order=True)
    return net, variables_of(net, renamed, config, {})


def _name(name: str, levels: int, layers: int, up: Sequence[str]) -> str:
    """guided-diffusion's name of a weight."""
    stem, _, kind = name.rpartition(".")
    fixed = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0", "conv_out": "out.2",
    }  # fmt: skip
    if stem in fixed:
        return f"{fixed[stem]}.{kind}"
    try:
        return f"{_place(stem.split('.'), levels, layers, up)}.{kind}"
    except (IndexError, KeyError, ValueError):
        return name  # none of the network's: it is named as left over


def _place(parts: Sequence[str], levels: int, layers: int, up: Sequence[str]) -> str:
    """guided-diffusion's name of a module in one of the blocks. Raises LookupError or ValueError where there is none."""
    inner = {"group_norm": "norm", "qkv": "qkv", "to_out": "proj_out", **RES}
    if parts[0] == "mid_block":
        at = {"resnets": 2 * int(parts[2]), "attentions": 1}[parts[1]]
        return f"middle_block.{at}.{inner[parts[3]]}"
    level, part, number = int(parts[1]), parts[2], int(parts[3])
    if parts[0] == "down_blocks":
        index = 1 + level * (layers + 1) + number
        if part == "downsamplers":
            return f"input_blocks.{index + layers}.0.op"
        return f"input_blocks.{index}.{int(part == 'attentions')}.{inner[parts[4]]}"
    index = level * (layers + 1) + number
    if part == "upsamplers":
        return f"output_blocks.{index + layers}.{1 + BLOCKS[up[level]]}.conv"
    return f"output_blocks.{index}.{int(part == 'attentions')}.{inner[parts[4]]}"
