"""Weights of score_sde (Song et al. 2021) -> `jgen.models.edm.SongUNet` (NCSN++, DDPM++) and `jgen.models.unet.UNet` (DDPM).

Names there are positions in one list (`all_modules.7.Conv_0.weight`); here the list is walked as its network builds it.
The arguments are the `model` and `data` sections of the authors' configurations.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.adm import variables_of
from jgen.convert.common import fill, param_shapes, to_linen
from jgen.errors import UserError
from jgen.models.edm import SongUNet
from jgen.models.unet import UNet

BLOCK = {
    "GroupNorm_0": "norm0", "Conv_0": "conv0", "Dense_0": "affine", "GroupNorm_1": "norm1", "Conv_1": "conv1", "Conv_2": "skip",
}  # fmt: skip
ATTENTION = {"GroupNorm_0": "norm2", "NIN_3": "proj"}
UNET_BLOCK = {
    "GroupNorm_0": "in_layers.0", "Conv_0": "in_layers.2", "Dense_0": "emb_layers.1", "GroupNorm_1": "out_layers.0",
    "Conv_1": "out_layers.3", "NIN_0": "skip_connection",
}  # fmt: skip
UNET_ATTENTION = {"GroupNorm_0": "norm", "NIN_3": "proj_out"}


def ncsnpp(
    weights: Mapping[str, np.ndarray], *, model: Mapping[str, Any], data: Mapping[str, Any], **_: Any
) -> tuple[SongUNet, dict[str, Any]]:
    """NCSN++ or DDPM++ and its {"params": ...}; the network predicts, to be divided by sigma where scale_by_sigma is set.

    Images go in as [-1, 1]; where the configuration has them in [0, 1], map them first. Raises UserError for a variant
    with other blocks, or for weights that do not fit.
    """
    wanted = dict(resblock_type="biggan", progressive="none", skip_rescale=True, conditional=True)
    if model["progressive_input"] not in ("residual", "none"):
        raise UserError(f"progressive_input={model['progressive_input']}: the converter knows residual and none")
    for name, value in wanted.items():
        if model[name] != value:
            raise UserError(f"{name}={model[name]}: the converter knows {value} only")
    fourier = model["embedding_type"] == "fourier"
    net = SongUNet(
        out_channels=data["num_channels"],
        channels=model["nf"],
        channel_mult=tuple(model["ch_mult"]),
        num_blocks=model["num_res_blocks"],
        attention_resolutions=tuple(model["attn_resolutions"]),
        embedding="fourier" if fourier else "positional",
        channel_mult_noise=2 if fourier else 1,
        encoder="residual" if model["progressive_input"] == "residual" else "standard",
        taps=tuple(model["fir_kernel"]) if model["fir"] else (1, 1),
        dropout=model["dropout"],
    )
    size = data["image_size"]
    shapes = param_shapes(net.init, jnp.zeros((1, size, size, data["num_channels"])), jnp.zeros(1))
    renamed = _renamed(weights, _song_modules(net, size), BLOCK, ATTENTION)
    return net, {"params": fill(shapes, renamed, lambda n: tuple(n.split(".")), lambda n, a, s: to_linen(a, s))}


def _song_modules(net: SongUNet, size: int) -> Iterator[tuple[str, str]]:
    """(our name, kind) of every module in the reference's list, in its order."""
    levels = len(net.channel_mult)
    if net.embedding == "fourier":
        yield "freqs", "fourier"
    yield "map_layer0", "plain"
    yield "map_layer1", "plain"
    for level in range(levels):
        side = size >> level
        at = f"enc_{side}x{side}"
        if level == 0:
            yield f"{at}_conv", "plain"
        else:
            yield f"{at}_down", "block"
            if net.encoder == "residual":
                yield f"{at}_aux_residual", "plain"
        for i in range(net.num_blocks):
            yield f"{at}_block{i}", "block"
            if side in net.attention_resolutions:
                yield f"{at}_block{i}", "attention"
    lowest = f"dec_{size >> (levels - 1)}x{size >> (levels - 1)}"
    yield f"{lowest}_in0", "block"
    yield f"{lowest}_in0", "attention"
    yield f"{lowest}_in1", "block"
    for level in reversed(range(levels)):
        side = size >> level
        at = f"dec_{side}x{side}"
        if level < levels - 1:
            yield f"{at}_up", "block"
        for i in range(net.num_blocks + 1):
            yield f"{at}_block{i}", "block"
        if side in net.attention_resolutions:
            yield f"{at}_block{net.num_blocks}", "attention"
    yield f"dec_{size}x{size}_aux_norm", "plain"
    yield f"dec_{size}x{size}_aux_conv", "plain"


def ddpm(
    weights: Mapping[str, np.ndarray], *, model: Mapping[str, Any], data: Mapping[str, Any], **_: Any
) -> tuple[UNet, dict[str, Any]]:
    """DDPM's U-Net and its {"params": ...}, as `ncsnpp`; attention has a single head."""
    size, levels, blocks = data["image_size"], len(model["ch_mult"]), model["num_res_blocks"]
    factors = tuple(2**i for i in range(levels) if size >> i in model["attn_resolutions"])
    net = UNet(
        channels=model["nf"], out_channels=data["num_channels"], num_res_blocks=blocks,
        channel_mult=tuple(model["ch_mult"]), attention_resolutions=factors, dropout=model["dropout"], epsilon=1e-6,
        asymmetric=True, time_endpoint=True, attend_last=True,
    )  # fmt: skip
    renamed = _renamed(weights, _unet_modules(levels, blocks, factors), UNET_BLOCK, UNET_ATTENTION)
    # Sines come first there, cosines here.
    first = renamed["time_embed.0.weight"]
    renamed["time_embed.0.weight"] = np.roll(first, first.shape[1] // 2, axis=1)
    config = dict(image_size=size, in_channels=data["num_channels"], use_new_attention_order=True)
    return net, variables_of(net, renamed, config, {})


def _unet_modules(levels: int, blocks: int, factors: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    yield "time_embed.0", "plain"
    yield "time_embed.2", "plain"
    yield "input_blocks.0.0", "plain"
    index = 1
    for level in range(levels):
        for _ in range(blocks):
            yield f"input_blocks.{index}.0", "block"
            if 2**level in factors:
                yield f"input_blocks.{index}.1", "attention"
            index += 1
        if level < levels - 1:
            yield f"input_blocks.{index}.0.op", "plain"
            index += 1
    yield "middle_block.0", "block"
    yield "middle_block.1", "attention"
    yield "middle_block.2", "block"
    index = 0
    for level in reversed(range(levels)):
        for _ in range(blocks + 1):
            yield f"output_blocks.{index}.0", "block"
            index += 1
        if 2**level in factors:
            yield f"output_blocks.{index - 1}.1", "attention"
        if level:
            yield f"output_blocks.{index - 1}.{1 + (2**level in factors)}.conv", "plain"
    yield "out.0", "plain"
    yield "out.2", "plain"


def _renamed(
    weights: Mapping[str, np.ndarray],
    modules: Iterator[tuple[str, str]],
    block: Mapping[str, str],
    attention: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """Weights by our names; query, key and value joined. Raises UserError for a part that no module has."""
    parts = _by_position(weights)
    renamed: dict[str, np.ndarray] = {}
    for index, (name, kind) in enumerate(modules):
        for part, array in parts.pop(index, {}).items():
            inner, _, leaf = part.rpartition(".")
            if inner.startswith("NIN"):  # [in, out] there
                array, leaf = array.T, {"W": "weight", "b": "bias"}[leaf]
            if kind == "fourier":
                renamed[name] = array
            elif kind == "plain":
                renamed[f"{name}.{leaf}"] = array
            else:
                renamed[f"{name}.{(block if kind == 'block' else attention).get(inner, inner)}.{leaf}"] = array
    if parts:
        index = min(parts)
        raise UserError(
            f"weight all_modules.{index}.{next(iter(parts[index]))}: a network of this configuration has no such part"
        )
    for name in [n for n in renamed if ".NIN_0." in n]:
        three = [renamed.pop(name.replace("NIN_0", f"NIN_{i}")) for i in range(3)]
        renamed[name.replace("NIN_0", "qkv")] = np.concatenate(three)
    return renamed


def _by_position(weights: Mapping[str, np.ndarray]) -> dict[int, dict[str, np.ndarray]]:
    """{position in all_modules: {what follows in the name: array}}; names may begin with "module." and sigmas are left out."""
    parts: dict[int, dict[str, np.ndarray]] = {}
    for name, array in weights.items():
        plain = name.removeprefix("module.")
        if plain == "sigmas":
            continue
        if not plain.startswith("all_modules."):
            raise UserError(f"weight {name}: a score_sde network's names begin with all_modules")
        _, index, part = plain.split(".", 2)
        parts.setdefault(int(index), {})[part] = np.asarray(array)
    return parts
