"""Weights of NVIDIA's StyleGAN2-ADA (PyTorch) -> `jgen.models.gan.stylegan2`. The arguments are those of its constructors.

`load_weights` reads the published .pkl files without running code from them; their names begin with "G_ema.", "G." and "D.".
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, param_shapes, to_linen
from jgen.models.gan.stylegan2 import Discriminator, Generator


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
    **_: Any,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "w_avg" [D], "noise": its constant planes {layer: [1, R, R, 1]}}.

    Raises UserError that lists missing or left-over weights.
    """
    mapping, synthesis = dict(mapping_kwargs or {}), dict(synthesis_kwargs or {})
    net = Generator(
        z_dim, c_dim, w_dim, img_resolution, img_channels, mapping.get("num_layers", 8), mapping.get("lr_multiplier", 0.01),
        synthesis.get("channel_base", 32768), synthesis.get("channel_max", 512), synthesis.get("architecture", "skip"),
        synthesis.get("conv_clamp"),
    )  # fmt: skip
    labels = {"c": jnp.zeros((1, c_dim))} if c_dim else {}
    shapes = param_shapes(net.init, jnp.zeros((1, z_dim)), **labels)
    noise = {
        name.removeprefix("synthesis.").removesuffix(".noise_const"): jnp.asarray(a, jnp.float32)[None, :, :, None]
        for name, a in weights.items()
        if name.endswith(".noise_const")
    }
    params = _filled(shapes, weights)
    return net, {"params": params, "w_avg": jnp.asarray(weights["mapping.w_avg"], jnp.float32), "noise": noise}


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
    mapping_kwargs: Mapping[str, Any] | None = None,
    epilogue_kwargs: Mapping[str, Any] | None = None,
    **_: Any,
) -> tuple[Discriminator, dict[str, Any]]:
    """The discriminator and its {"params": ...}, as `generator`."""
    epilogue: Any = dict(epilogue_kwargs or {})
    how: Any = dict(architecture=architecture)
    net = Discriminator(
        c_dim, img_resolution, img_channels, channel_base, channel_max, conv_clamp=conv_clamp, cmap_dim=cmap_dim,
        mapping_layers=dict(mapping_kwargs or {}).get("num_layers", 8), group=epilogue.get("mbstd_group_size", 4),
        std_channels=epilogue.get("mbstd_num_channels", 1), **how,
    )  # fmt: skip
    labels = {"c": jnp.zeros((1, c_dim))} if c_dim else {}
    shapes = param_shapes(net.init, jnp.zeros((1, img_resolution, img_resolution, img_channels)), **labels)
    return net, {"params": _filled(shapes, weights)}


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
