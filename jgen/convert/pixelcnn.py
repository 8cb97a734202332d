"""pytorch-generative's PixelCNN and GatedPixelCNN."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.models.pixelcnn import GatedPixelCNN, PixelCNN

NAMES = (
    (r"^_causal_layers\.(\d+)\._net\.1\.", r"blocks.\1.down."),
    (r"^_causal_layers\.(\d+)\._net\.3\.", r"blocks.\1.masked."),
    (r"^_causal_layers\.(\d+)\._net\.5\.", r"blocks.\1.up."),
    (r"^_head\.1\.", "head.hidden."),
    (r"^_head\.3\.", "head.out."),
    (r"^_gated_layers\.(\d+)\.", lambda m: f"stack.{int(m[1]) + 1}."),
    (r"^_input\.", "stack.0."),
    (r"_vstack_1xN", "vertical_1xn"),
    (r"_vstack_Nx1", "vertical_nx1"),
    (r"_vstack_1x1", "vertical_1x1"),
    (r"_hstack_1xN", "horizontal_1xn"),
    (r"_hstack_residual", "residual"),
    (r"_hstack_skip", "skip"),
    (r"\._link", ".link"),
)


def pixelcnn(
    weights: Mapping[str, np.ndarray], *, in_channels: int, out_channels: int, n_residual: int, residual_channels: int,
    head_channels: int, **other: Any,
) -> tuple[PixelCNN, dict[str, Any]]:  # fmt: skip
    """pytorch-generative's PixelCNN, whose blocks add their shortcut twice; sample_fn, of its sampling alone, is passed over.

    Raises UserError for an argument that its constructor doesn't have, and for weights that do not fit.
    """
    check_options(other, (), {"sample_fn": ANY}, "PixelCNN")
    used = {name: value for name, value in weights.items() if not name.endswith(".mask")}
    net = PixelCNN(out_channels, residual_channels, n_residual, head_channels, twice=True)
    kernel, bias = used.pop("_input.weight"), used.pop("_input.bias")
    # The masked 7x7 in two parts; the bias stands once.
    used |= {"above.weight": kernel[:, :, :3], "above.bias": bias, "left.weight": kernel[:, :, 3:4, :3]}
    used["left.bias"] = np.zeros_like(bias)
    return net, _filled(net, used, in_channels)


def gated_pixelcnn(
    weights: Mapping[str, np.ndarray], *, in_channels: int, out_channels: int, n_gated: int, gated_channels: int,
    head_channels: int, **other: Any,
) -> tuple[GatedPixelCNN, dict[str, Any]]:  # fmt: skip
    """pytorch-generative's GatedPixelCNN, as `pixelcnn`."""
    check_options(other, (), {"sample_fn": ANY}, "GatedPixelCNN")
    net = GatedPixelCNN(out_channels, gated_channels, n_gated, head_channels)
    return net, _filled(net, weights, in_channels)


def _filled(net: Any, weights: Mapping[str, np.ndarray], channels: int) -> dict[str, Any]:
    def path(name: str) -> tuple[str, ...]:
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        module, last = name.rsplit(".", 1)
        return linen_path(f"{module}.own.{last}")

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        array = to_linen(array, shape)
        return array[: shape[0]] if array.ndim == 4 else array  # rows below the middle of a masked kernel

    shapes = param_shapes(net.init, jnp.zeros((1, 8, 8, channels)))
    return {"params": fill(shapes, weights, path, layout)}
