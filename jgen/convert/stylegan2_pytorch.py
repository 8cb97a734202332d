"""Weights of StyleGAN2 in rosinality/stylegan2-pytorch's names, which pSp's and e4e's files hold as well -> `jgen.models.gan`.

A file has the networks "g_ema", "g" and "d", and the mean style "latent_avg" beside them: `load_weights(path, "g_ema")` gives
one with it. In a file of pSp the generator is `part(weights, "decoder")`. The layers are those of the authors' PyTorch
networks (config F without labels) under other names, so this renames them and leaves the rest to `jgen.convert.stylegan2`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jgen.convert import stylegan2
from jgen.errors import UserError
from jgen.models.gan.stylegan2 import Discriminator, Generator

Weights = Mapping[str, np.ndarray]
Rules = Mapping[str, str]


def generator(
    weights: Weights,
    *,
    latent_avg: np.ndarray | None = None,
    blur_kernel: tuple[float, ...] = (1, 3, 3, 1),
    lr_mlp: float = 0.01,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "w_avg" [D], "w_avg_beta", "noise"}, as `jgen.convert.stylegan2.generator` gives them.

    The side, the depth of the mapping and all widths follow the weights. latent_avg, of shape [D] or equal rows [num_ws, D], is
    the mean style; without it w_avg is None, and the authors take the mean of many codes instead. Raises UserError for a filter
    other than the weights', widths that do not follow a channel_base, and weights that are missing or left over.
    """
    sides = _sides(weights, "to_rgbs", 1)
    _check_filters(weights, blur_kernel)
    n_mlp = sum(bool(re.fullmatch(r"style\.\d+\.weight", name)) for name in weights)
    z_dim, w_dim = (_array(weights, f"{layer}.weight").shape[-1] for layer in ("style.1", "conv1.conv.modulation"))
    named = dict(_renamed(weights, _generator_rules(sides, n_mlp)))
    if latent_avg is not None:
        named["mapping.w_avg"] = _mean_style(latent_avg, w_dim)
    beta = None if latent_avg is None else 0.995
    channels = [_array(named, "synthesis.b4.const").shape[0]]
    channels += [_array(named, f"synthesis.b{side}.conv1.weight").shape[0] for side in sides]
    base, most = _widths(sides, channels)
    return stylegan2.generator(
        named,
        z_dim=z_dim,
        w_dim=w_dim,
        img_resolution=sides[-1],
        img_channels=_array(named, "synthesis.b4.torgb.bias").shape[0],
        mapping_kwargs={"num_layers": n_mlp, "lr_multiplier": lr_mlp, "w_avg_beta": beta},
        synthesis_kwargs={"channel_base": base, "channel_max": most, "resample_filter": blur_kernel},
    )


def discriminator(weights: Weights, *, blur_kernel: tuple[float, ...] = (1, 3, 3, 1)) -> tuple[Discriminator, dict[str, Any]]:
    """The residual discriminator and its {"params": ...}, of the weights' side and widths. Raises as `generator` does."""
    sides = _sides(weights, "convs", 0)
    _check_filters(weights, blur_kernel)
    named = dict(_renamed(weights, _discriminator_rules(sides)))
    channels = [_array(named, "b4.conv.weight").shape[0]]
    channels += [_array(named, f"b{side}.conv0.weight").shape[0] for side in sides]
    base, most = _widths(sides, channels)
    return stylegan2.discriminator(
        named,
        img_resolution=sides[-1],
        img_channels=_array(named, f"b{sides[-1]}.fromrgb.weight").shape[1],
        block_kwargs={"resample_filter": blur_kernel},
        channel_base=base,
        channel_max=most,
    )


def _array(weights: Weights, name: str) -> np.ndarray:
    if name not in weights or weights[name].ndim == 0:
        raise UserError(f"not weights of this network: {name} is missing, or a number")
    return weights[name]


def _sides(weights: Weights, module: str, first: int) -> list[int]:
    """The sides from 8 on, by the number of a module's layers."""
    layers = len({name.split(".")[1] for name in weights if name.startswith(f"{module}.")}) - (1 - first)
    if not 1 <= layers <= 12:
        raise UserError(f"not weights of this network: {layers} levels above 4x4 in {module}")
    return [8 * 2**i for i in range(layers)]


def _widths(sides: list[int], channels: list[int]) -> tuple[int, int]:
    """channel_base and channel_max that give the channels of 4x4 and of each side."""
    most, base = max(channels), channels[-1] * sides[-1]
    if channels != [min(base // side, most) for side in (4, *sides)]:
        raise UserError(f"widths {channels} from 4x4 on: must be the same until they halve at each level")
    return base, most


def _styled(ours: str, theirs: str) -> dict[str, str]:
    return {
        f"{theirs}.conv.weight": f"{ours}.weight", f"{theirs}.conv.modulation.weight": f"{ours}.affine.weight",
        f"{theirs}.conv.modulation.bias": f"{ours}.affine.bias", f"{theirs}.noise.weight": f"{ours}.noise_strength",
        f"{theirs}.activate.bias": f"{ours}.bias", f"{theirs}.bias": f"{ours}.bias",
    }  # fmt: skip


def _generator_rules(sides: list[int], n_mlp: int) -> Rules:
    rules = {"input.input": "synthesis.b4.const", "noises.noise_0": "synthesis.b4.conv1.noise_const"}
    for layer in range(n_mlp):  # style.0 normalises, and has no weights
        rules |= {f"style.{layer + 1}.{kind}": f"mapping.fc{layer}.{kind}" for kind in ("weight", "bias")}
    rules |= _styled("synthesis.b4.conv1", "conv1") | _styled("synthesis.b4.torgb", "to_rgb1")
    for i, side in enumerate(sides):
        block = f"synthesis.b{side}"
        rules |= _styled(f"{block}.torgb", f"to_rgbs.{i}")
        for j in (0, 1):
            rules |= _styled(f"{block}.conv{j}", f"convs.{2 * i + j}")
            rules[f"noises.noise_{2 * i + j + 1}"] = f"{block}.conv{j}.noise_const"
    return rules


def _discriminator_rules(sides: list[int]) -> Rules:
    rules = {f"convs.0.{part}": f"b{sides[-1]}.fromrgb.{kind}" for part, kind in (("0.weight", "weight"), ("1.bias", "bias"))}
    for i, side in enumerate(reversed(sides)):
        layers = {"conv1.0.weight": "conv0.weight", "conv1.1.bias": "conv0.bias", "conv2.1.weight": "conv1.weight"}
        layers |= {"conv2.2.bias": "conv1.bias", "skip.1.weight": "skip.weight"}
        rules |= {f"convs.{i + 1}.{theirs}": f"b{side}.{ours}" for theirs, ours in layers.items()}
    last = {"final_conv.0.weight": "conv.weight", "final_conv.1.bias": "conv.bias"}
    last |= {
        f"final_linear.{i}.{kind}": f"{name}.{kind}" for i, name in enumerate(("fc", "out")) for kind in ("weight", "bias")
    }
    return rules | {theirs: f"b4.{ours}" for theirs, ours in last.items()}


def _renamed(weights: Weights, rules: Rules) -> Iterator[tuple[str, np.ndarray]]:
    """Pairs of the authors' names and arrays in their shapes; names without a rule are kept, for the error that lists them."""
    for name, array in weights.items():
        if name.endswith(".kernel"):
            continue
        ours = rules.get(name, name)
        if (
            re.search(r"(\.conv[01]|\.torgb)\.weight$|\.const$", ours)
            and array.ndim > 3
            and name.endswith(("conv.weight", "input"))
        ):
            array = array[0]  # they keep a place for the batch
        elif ours.endswith(("noise_strength", "torgb.bias")):
            array = array.reshape(() if ours.endswith("noise_strength") else (-1,))
        elif ours.endswith("noise_const"):
            array = array.reshape(array.shape[-2:])
        yield ours, array


def _mean_style(latent_avg: np.ndarray, style_dim: int) -> np.ndarray:
    rows = np.asarray(latent_avg)
    if rows.ndim not in (1, 2) or rows.shape[-1] != style_dim or not rows.size or (rows.ndim == 2 and (rows != rows[0]).any()):
        raise UserError(f"latent_avg of shape {rows.shape}: must be [{style_dim}], or equal rows of that length")
    return rows if rows.ndim == 1 else rows[0]


def _check_filters(weights: Weights, taps: tuple[float, ...]) -> None:
    want = np.outer(taps, taps) / np.sum(taps) ** 2
    for name, found in weights.items():
        if name.endswith(".kernel") and (
            found.shape != want.shape or not np.sum(found) or np.abs(found / np.sum(found) - want).max() > 1e-6
        ):
            raise UserError(f"blur_kernel={taps}: the weights have another one, {name} {np.asarray(found).tolist()}")
