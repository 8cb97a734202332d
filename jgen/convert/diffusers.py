"""diffusers' UNet2DModel with plain and attentive blocks -> `jgen.models.unet.UNet`, by renaming."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jgen.convert.adm import variables_of
from jgen.convert.common import join_qkv
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.unet import UNet

BLOCKS = {
    "DownBlock2D": False, "AttnDownBlock2D": True, "UpBlock2D": False, "AttnUpBlock2D": True, "ResnetDownsampleBlock2D": False,
    "ResnetUpsampleBlock2D": False,
}  # fmt: skip
"""{kind of a block: whether it has attention}."""
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
CLASSES: dict[str | None, Any] = {None: "class", "timestep": "time", "identity": "vector"}
"""{class_embed_type: label_as of the network}."""
LIMITS: dict[str, tuple[Any, ...] | None] = {
    "sample_size": ANY,
    "num_train_timesteps": ANY,  # of time_embedding_type="learned" alone
    "act_fn": ("silu", "swish"),
    "add_attention": (False, True),
    "attention_legacy_order": (False,),
    "center_input_sample": (False,),
    "class_embed_type": tuple(CLASSES),
    "downsample_padding": (0, 1),
    "downsample_type": ("conv", "resnet"),
    "flip_sin_to_cos": (False, True),
    "freq_shift": (0, 1),
    "mid_block_scale_factor": (1,),
    "mid_block_type": ("UNetMidBlock2D",),
    "resnet_time_scale_shift": ("default", "scale_shift"),
    "time_embedding_type": ("positional",),
    "upsample_type": ("conv", "resnet"),
}
"""Options with the values that they may have here; ANY where they say nothing of the network."""


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
    attn_norm_num_groups: int | None = None,
    add_attention: bool = True,
    class_embed_type: str | None = None,
    num_class_embeds: int | None = None,
    time_embedding_dim: int | None = None,
    dropout: float = 0.0,
    **other: Any,
) -> tuple[UNet, dict[str, Any]]:
    """The network and its {"params": ...} from diffusers' names and config, of today or as in its first releases.

    Labels are classes where num_class_embeds is given, numbers for class_embed_type="timestep", and vectors for "identity".
    Names that begin with an underscore, which diffusers adds to a config, are passed over. Raises UserError for blocks of
    other kinds, for options that make another network, and for weights that do not fit.
    """
    given = dict(
        add_attention=add_attention, class_embed_type=class_embed_type, downsample_padding=downsample_padding,
        flip_sin_to_cos=flip_sin_to_cos, freq_shift=freq_shift, resnet_time_scale_shift=resnet_time_scale_shift,
    )  # fmt: skip
    given |= {name: value for name, value in other.items() if not name.startswith("_")}
    check_options(given, (), LIMITS, "UNet2DModel")
    attends, resnet = _blocks(down_block_types, up_block_types, block_out_channels, other)
    width = block_out_channels[0]
    if time_embedding_dim not in (None, 4 * width):
        raise UserError(f"time_embedding_dim={time_embedding_dim}: must be None or {4 * width}, 4 times the first width")
    labelled = num_class_embeds if class_embed_type is None else 1
    # With the conditioning by scale and shift, the middle's attention has no norm of its own unless it is asked for.
    groups = norm_num_groups if resnet_time_scale_shift == "default" else None
    groups = groups if attn_norm_num_groups is None else attn_norm_num_groups
    net = UNet(
        channels=width,
        out_channels=out_channels,
        num_res_blocks=layers_per_block,
        channel_mult=tuple(_multiple(c, width) for c in block_out_channels),
        attention_resolutions=tuple(2**i for i, own in enumerate(attends) if own),
        num_classes=labelled or 0,
        label_as=CLASSES[class_embed_type],
        dropout=dropout,
        middle_attention=add_attention,
        middle_groups=groups,
        head_channels=attention_head_dim,
        scale_shift_norm=resnet_time_scale_shift == "scale_shift",
        resblock_updown=resnet,
        groups=norm_num_groups,
        epsilon=norm_eps,
        asymmetric=downsample_padding == 0,
        time_endpoint=bool(freq_shift),
    )
    renamed = _renamed(weights, len(block_out_channels), layers_per_block, up_block_types, flip_sin_to_cos)
    size = 2 ** len(block_out_channels)
    config = dict(image_size=size, in_channels=in_channels, use_new_attention_order=True)
    return net, variables_of(net, renamed, config, {})


def _blocks(
    down_kinds: Sequence[str], up_kinds: Sequence[str], widths: Sequence[int], options: Mapping[str, Any]
) -> tuple[list[bool], bool]:
    """(which blocks have attention, from the first level on; whether they resample in residual blocks).

    Raises UserError for blocks of other kinds, and for ways down and up that differ.
    """
    unknown = sorted({*down_kinds, *up_kinds} - set(BLOCKS))
    if unknown:
        raise UserError(f"{unknown[0]}: blocks must be among {', '.join(BLOCKS)}")
    resampled = _resampled(down_kinds, options.get("downsample_type", "conv"))
    resampled |= _resampled(up_kinds, options.get("upsample_type", "conv"))
    if len(resampled) > 1:
        raise UserError(
            f"down_block_types={list(down_kinds)}, up_block_types={list(up_kinds)}: all must resample by residual"
            " blocks (Resnet…, and Attn… with downsample_type=upsample_type=resnet), or all by convolutions"
        )
    down, up = ([BLOCKS[kind] for kind in kinds] for kinds in (down_kinds, up_kinds))
    if down != up[::-1] or len(down) != len(widths):
        raise UserError(
            f"up_block_types={list(up_kinds)}: must have attention where {list(down_kinds)} do, in reverse,"
            f" a block for each of block_out_channels={list(widths)}"
        )
    return down, "resnet" in resampled


def _renamed(
    weights: Mapping[str, np.ndarray], levels: int, layers: int, up_kinds: Sequence[str], cosines_first: bool
) -> dict[str, np.ndarray]:
    """The weights by ADM's names; embeddings of times in ADM's order, whose cosines come first."""
    renamed = {}
    for name, array in join_qkv({_today(name): array for name, array in weights.items()}).items():
        if name in ("time_embedding.linear_1.weight", "class_embedding.linear_1.weight") and not cosines_first:
            array = np.roll(array, array.shape[1] // 2, axis=1)
        renamed[_name(name, levels, layers, up_kinds)] = array
    return renamed


def _resampled(kinds: Sequence[str], by_attentive: str) -> set[str]:
    """How the blocks of one way resample, all but the last, which doesn't: "conv" or "resnet"; by_attentive: those with
    attention."""
    own = {kind: "resnet" if kind.startswith("Resnet") else by_attentive if BLOCKS[kind] else "conv" for kind in kinds}
    return {own[kind] for kind in kinds[:-1]}


def _multiple(channels: int, width: int) -> float:
    """The multiple of a width that comes to so many channels, its fraction cut off."""
    multiple = channels / width
    return multiple if int(multiple * width) == channels else math.nextafter(multiple, math.inf)


def _name(name: str, levels: int, layers: int, up: Sequence[str]) -> str:
    """guided-diffusion's name of a weight."""
    stem, _, kind = name.rpartition(".")
    fixed = {
        "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
        "conv_norm_out": "out.0", "conv_out": "out.2", "class_embedding": "label_emb",
        "class_embedding.linear_1": "label_emb.0", "class_embedding.linear_2": "label_emb.2",
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
            return f"input_blocks.{index + layers}.0.{_resampler('op', parts)}"
        return f"input_blocks.{index}.{int(part == 'attentions')}.{inner[parts[4]]}"
    index = level * (layers + 1) + number
    if part == "upsamplers":
        return f"output_blocks.{index + layers}.{1 + BLOCKS[up[level]]}.{_resampler('conv', parts)}"
    return f"output_blocks.{index}.{int(part == 'attentions')}.{inner[parts[4]]}"


def _resampler(plain: str, parts: Sequence[str]) -> str:
    """The name within a resampler: of its one convolution, or of a layer of its residual block."""
    return plain if parts[4] == "conv" else RES[parts[4]]
