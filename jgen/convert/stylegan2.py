"""Weights of NVIDIA's StyleGAN2-ADA (PyTorch) -> `jgen.models.gan.stylegan2`. The arguments are those of its constructors.

`load_weights` reads the published .pkl files without running code from them; their names begin with "G_ema.", "G." and "D.".
The copy of these networks in StyleGAN3's code has the same weights, and other defaults for conv_clamp and w_avg_beta.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.gan.stylegan2 import Discriminator, Generator
from jgen.nn.equalized import FUNCTIONS
from jgen.nn.fir import setup_filter

ACTIVATIONS, ARCHITECTURES = tuple(FUNCTIONS), ("orig", "skip", "resnet")
Options = dict[str, tuple[Any, ...] | None]
PRECISION: Options = {
    "num_fp16_res": ANY, "use_fp16": ANY, "fp16_channels_last": ANY, "channels_last": ANY, "fused_modconv_default": ANY,
}  # fmt: skip
"""How the authors compute; here it is in float32, whatever these say."""
MAPPING = ("num_layers", "embed_features", "layer_features", "lr_multiplier", "w_avg_beta")
SYNTHESIS = ("channel_base", "channel_max", "conv_clamp", "resample_filter")


def generator(
    weights: Mapping[str, np.ndarray],
    *,
    z_dim: int = 512,
    c_dim: int = 0,
    w_dim: int = 512,
    img_resolution: int,
    img_channels: int = 3,
    mapping_kwargs: Mapping[str, Any] | None = None,
    synthesis_kwargs: Mapping[str, Any] | None = None,
    **other: Any,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "w_avg" [D], "w_avg_beta", "noise": its constant planes {layer: [1, R, R, 1]}}.

    w_avg is None where w_avg_beta is, and "noise" is empty where the network has none. Raises UserError that names an
    argument which the constructors don't have or which makes a network that jgen can't, and one that lists missing or
    left-over weights.
    """
    mapping, synthesis = dict(mapping_kwargs or {}), dict(synthesis_kwargs or {})
    check_options(other, (), {}, "StyleGAN2's Generator")
    check_options(mapping, MAPPING, {"activation": ACTIVATIONS}, "mapping_kwargs")
    limits = {"activation": ACTIVATIONS, "architecture": ARCHITECTURES, "use_noise": (False, True), "kernel_size": (3,)}
    check_options(synthesis, SYNTHESIS, {**limits, **PRECISION}, "synthesis_kwargs")
    taps, beta = _taps(synthesis), mapping.get("w_avg_beta", 0.995)
    net = Generator(
        z_dim, c_dim, w_dim, img_resolution, img_channels, mapping.get("num_layers", 8), mapping.get("lr_multiplier", 0.01),
        synthesis.get("channel_base", 32768), synthesis.get("channel_max", 512), synthesis.get("architecture", "skip"),
        synthesis.get("conv_clamp"), mapping.get("embed_features"), mapping.get("layer_features"),
        mapping.get("activation", "lrelu"), synthesis.get("use_noise", True), synthesis.get("activation", "lrelu"), taps,
    )  # fmt: skip
    _check_filters(weights, taps, "conv0")
    labels = {"c": jnp.zeros((1, c_dim))} if c_dim else {}
    shapes = param_shapes(net.init, jnp.zeros((1, z_dim)), **labels)
    noise = {
        name.removeprefix("synthesis.").removesuffix(".noise_const"): jnp.asarray(a, jnp.float32)[None, :, :, None]
        for name, a in weights.items()
        if name.endswith(".noise_const")
    }
    params, centre = _filled(shapes, weights), weights.get("mapping.w_avg")
    if (centre is None) != (beta is None):
        raise UserError(f"w_avg_beta={beta}: the weights have {'no' if centre is None else 'a'} mapping.w_avg")
    w_avg = None if centre is None else jnp.asarray(centre, jnp.float32)
    return net, {"params": params, "w_avg": w_avg, "w_avg_beta": beta, "noise": noise}


def discriminator(
    weights: Mapping[str, np.ndarray],
    *,
    c_dim: int = 0,
    img_resolution: int,
    img_channels: int = 3,
    architecture: str = "resnet",
    channel_base: int = 32768,
    channel_max: int = 512,
    conv_clamp: float | None = None,
    cmap_dim: int | None = None,
    block_kwargs: Mapping[str, Any] | None = None,
    mapping_kwargs: Mapping[str, Any] | None = None,
    epilogue_kwargs: Mapping[str, Any] | None = None,
    **other: Any,
) -> tuple[Discriminator, dict[str, Any]]:
    """The discriminator and its {"params": ...}, as `generator`. Layers that freeze_layers keeps from learning learn here."""
    block, mapping, epilogue = (dict(kwargs or {}) for kwargs in (block_kwargs, mapping_kwargs, epilogue_kwargs))
    limits: Options = {"architecture": ARCHITECTURES, "num_fp16_res": ANY}
    check_options({**other, "architecture": architecture}, (), limits, "StyleGAN2's Discriminator")
    check_options(block, ("resample_filter",), {"activation": ACTIVATIONS, "freeze_layers": ANY, **PRECISION}, "block_kwargs")
    # It keeps no average of w, so that w_avg_beta is no argument of its mapping.
    check_options(mapping, MAPPING[:-1], {"activation": ACTIVATIONS}, "mapping_kwargs")
    groups = ("mbstd_group_size", "mbstd_num_channels")
    check_options(epilogue, groups, {"activation": ACTIVATIONS}, "epilogue_kwargs")
    if c_dim and cmap_dim == 0:
        raise UserError(f"cmap_dim=0, {c_dim=}: labels need a projection of at least 1 channel")
    taps = _taps(block)
    how: Any = dict(architecture=architecture)
    net = Discriminator(
        c_dim, img_resolution, img_channels, channel_base, channel_max, conv_clamp=conv_clamp, cmap_dim=cmap_dim,
        mapping_layers=mapping.get("num_layers", 8), group=epilogue.get("mbstd_group_size", 4),
        std_channels=epilogue.get("mbstd_num_channels", 1), activation=block.get("activation", "lrelu"),
        last_activation=epilogue.get("activation", "lrelu"), resample_filter=taps,
        mapping_lr_mul=mapping.get("lr_multiplier", 0.01), embed_features=mapping.get("embed_features"),
        layer_features=mapping.get("layer_features"), mapping_activation=mapping.get("activation", "lrelu"), **how,
    )  # fmt: skip
    _check_filters(weights, taps, "conv1")
    labels = {"c": jnp.zeros((1, c_dim))} if c_dim else {}
    shapes = param_shapes(net.init, jnp.zeros((1, img_resolution, img_resolution, img_channels)), **labels)
    return net, {"params": _filled(shapes, weights)}


def _taps(kwargs: Mapping[str, Any]) -> Any:
    """resample_filter as a tuple, or a tuple of rows; None is the single tap 1. Raises UserError for anything else."""
    given = kwargs.get("resample_filter", (1, 3, 3, 1))
    try:
        taps = np.atleast_1d(np.asarray(1.0 if given is None else given, np.float64))
    except ValueError:
        raise UserError(f"resample_filter={given}: must be numbers or rows of them, all of one length") from None
    if taps.ndim > 2 or not taps.size or not taps.sum():
        raise UserError(f"resample_filter={given}: must be numbers or rows of them, with a sum other than 0")
    return tuple(taps.tolist()) if taps.ndim == 1 else tuple(map(tuple, taps.tolist()))


def _check_filters(weights: Mapping[str, np.ndarray], taps: Any, resampled: str) -> None:
    """Raises UserError where a layer that resamples, one so named or a skip, comes with another filter than taps."""
    want = setup_filter(taps)
    for name, found in weights.items():
        if name.endswith((f".{resampled}.resample_filter", ".skip.resample_filter")) and (
            found.shape != want.shape or np.abs(found - want).max() > 1e-6
        ):
            raise UserError(f"resample_filter={taps}: the weights have another one, {name} {np.asarray(found).tolist()}")


def _filled(shapes: Any, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    made_here = ("resample_filter", "noise_const", "w_avg")
    used = {k: v for k, v in weights.items() if k.rsplit(".", 1)[-1] not in made_here}

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(".const"):
            return array.transpose(1, 2, 0)
        if name == "b4.fc.weight":  # features are flattened in the order C, H, W there
            wide = array.reshape(array.shape[0], -1, 4, 4)
            return wide.transpose(2, 3, 1, 0).reshape(shape)
        return to_linen(array, shape)

    return fill(shapes, used, lambda name: tuple(name.split(".")), layout)
