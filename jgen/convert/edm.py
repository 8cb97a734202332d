"""Weights of NVIDIA's EDM -> `jgen.models.edm`.

The arguments are those of the reference constructors (a pickle of theirs holds them as init_kwargs). Names may begin with
"model.", as in the published networks, which wrap the U-Net in a preconditioner, and with "ema." before that, as in the
snapshots of training, which hold the augmentation besides. Query, key and value channels stand as [head, c, 3] there and as
[3, head, c] here.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, param_shapes, part, to_linen
from jgen.models.edm import DhariwalUNet, SongUNet


def song_unet(
    weights: Mapping[str, np.ndarray],
    *,
    img_resolution: int,
    in_channels: int,
    embedding_type: str = "positional",
    channel_mult_noise: int = 1,
    encoder_type: str = "standard",
    decoder_type: str = "standard",
    resample_filter: Sequence[float] = (1, 1),
    **config: Any,
) -> tuple[SongUNet, dict[str, Any]]:
    """The network and its {"params": ...}. Raises UserError that lists missing or left-over weights."""
    own: Any = dict(
        embedding=embedding_type,
        channel_mult_noise=channel_mult_noise,
        encoder=encoder_type,
        decoder=decoder_type,
        taps=tuple(resample_filter),
    )
    net = SongUNet(**_fields(4, 4, (1, 2, 2, 2), (16,), **config), **own)
    return net, _variables(net, weights, img_resolution, in_channels)


def dhariwal_unet(
    weights: Mapping[str, np.ndarray], *, img_resolution: int, in_channels: int, **config: Any
) -> tuple[DhariwalUNet, dict[str, Any]]:
    """As `song_unet`."""
    net = DhariwalUNet(**_fields(4, 3, (1, 2, 3, 4), (32, 16, 8), **config))
    return net, _variables(net, weights, img_resolution, in_channels)


def _fields(
    emb: int, blocks: int, mult: Sequence[int], attend: Sequence[int], *, out_channels: int, label_dim: int = 0,
    augment_dim: int = 0, model_channels: int = 128, channel_mult: Sequence[int] | None = None,
    channel_mult_emb: int | None = None, num_blocks: int | None = None, attn_resolutions: Sequence[int] | None = None,
    dropout: float = 0.10, label_dropout: float = 0, network: str = "",
) -> dict[str, Any]:  # fmt: skip
    """The fields that both networks have; label_dropout belongs to their training, network names the class."""
    return dict(
        out_channels=out_channels,
        channels=model_channels,
        channel_mult=tuple(channel_mult or mult),
        channel_mult_emb=channel_mult_emb or emb,
        num_blocks=num_blocks or blocks,
        attention_resolutions=tuple(attn_resolutions or attend),
        classes=label_dim,
        augment=augment_dim,
        dropout=dropout,
    )


def _path(name: str) -> Path:
    parts = name.split(".")
    if parts[0] in ("enc", "dec"):
        return (f"{parts[0]}_{parts[1]}", *parts[2:])
    return ("freqs",) if name == "map_noise.freqs" else tuple(parts)


def _variables(net: Any, weights: Mapping[str, np.ndarray], size: int, channels: int) -> dict[str, Any]:
    inputs = {"label": jnp.zeros((1, net.classes))} if net.classes else {}
    inputs |= {"augment": jnp.zeros((1, net.augment))} if net.augment else {}
    shapes = param_shapes(net.init, jnp.zeros((1, size, size, channels)), jnp.zeros(1), **inputs)
    # Filters are made here from their taps, and noise levels are the preconditioner's.
    made_here = ("resample_filter", "u")
    given = (part(weights, "ema") or weights).items()
    used = {k.removeprefix("model."): v for k, v in given if k.split(".")[-1] not in made_here}

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if ".qkv." in name:
            heads = max(array.shape[0] // 3 // 64, 1) if isinstance(net, DhariwalUNet) else 1
            grouped = array.reshape(heads, -1, 3, *array.shape[1:])
            array = np.moveaxis(grouped, 2, 0).reshape(array.shape)
        return to_linen(array, shape)

    return {"params": fill(shapes, used, _path, layout)}
