"""Weights of NVIDIA's EDM -> `jgen.models.edm`.

The arguments are those of the reference constructors (a pickle of theirs holds them as init_kwargs). Names may begin with
"model.", as in the published networks, which wrap the U-Net in a preconditioner, and with "ema." before that, as in the
snapshots of training, which hold the augmentation besides. Query, key and value channels stand as [head, c, 3] there and as
[3, head, c] here.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, param_shapes, part, to_linen
from jgen.convert.options import ANY, check_options
from jgen.models.edm import DhariwalUNet, SongUNet

LABEL_DROPOUT = {"label_dropout": ANY}
"""Options that belong to training alone."""
COMMON: dict[str, Any] = dict(
    label_dim=0, augment_dim=0, model_channels=128, channel_mult=(1, 2, 2, 2), channel_mult_emb=4, num_blocks=4,
    attn_resolutions=(16,), dropout=0.10,
)  # fmt: skip
"""The reference's defaults of what both networks have, for SongUNet."""
DHARIWAL = {**COMMON, "model_channels": 192, "channel_mult": (1, 2, 3, 4), "num_blocks": 3, "attn_resolutions": (32, 16, 8)}
SONG = {**COMMON, "channel_mult_noise": 1, "resample_filter": (1, 1)}
CHOICES = {
    "embedding_type": ("positional", "fourier"),
    "encoder_type": ("standard", "skip", "residual"),
    "decoder_type": ("standard", "skip"),
}
"""The values of SongUNet's options that are names, the default first."""


def song_unet(
    weights: Mapping[str, np.ndarray], *, img_resolution: int, in_channels: int, out_channels: int, **config: Any
) -> tuple[SongUNet, dict[str, Any]]:
    """The network and its {"params": ...}.

    Raises UserError for an argument that the reference constructor does not have, a value that it does not take, and weights
    that are missing or left over, which it lists.
    """
    check_options(config, tuple(SONG), {**CHOICES, **LABEL_DROPOUT, "network": ("SongUNet",)}, "SongUNet")
    given = {**SONG, **{name: values[0] for name, values in CHOICES.items()}, **config}
    net = SongUNet(
        **_fields(given),
        out_channels=out_channels,
        embedding=given["embedding_type"],
        channel_mult_noise=given["channel_mult_noise"],
        encoder=given["encoder_type"],
        decoder=given["decoder_type"],
        taps=tuple(given["resample_filter"]),
    )
    return net, _variables(net, weights, img_resolution, in_channels)


def dhariwal_unet(
    weights: Mapping[str, np.ndarray], *, img_resolution: int, in_channels: int, out_channels: int, **config: Any
) -> tuple[DhariwalUNet, dict[str, Any]]:
    """DhariwalUNet and its {"params": ...}, without attention below 64 channels, as in the reference. Raises as `song_unet`."""
    check_options(config, tuple(DHARIWAL), {**LABEL_DROPOUT, "network": ("DhariwalUNet",)}, "DhariwalUNet")
    net = DhariwalUNet(**_fields({**DHARIWAL, **config}), out_channels=out_channels, attend_narrow=False)
    return net, _variables(net, weights, img_resolution, in_channels)


def _fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that both networks have."""
    return dict(
        channels=given["model_channels"],
        channel_mult=tuple(given["channel_mult"]),
        channel_mult_emb=given["channel_mult_emb"],
        num_blocks=given["num_blocks"],
        attention_resolutions=tuple(given["attn_resolutions"]),
        classes=given["label_dim"],
        augment=given["augment_dim"],
        dropout=given["dropout"],
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
