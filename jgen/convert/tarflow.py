"""apple/ml-tarflow's Model."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.models.tarflow import TarFlow

NAMES = (
    (r"^blocks\.", "block."), (r"\.attn_blocks\.", ".layer."), (r"\.attention\.norm\.", ".norm."), (r"\.attention\.", "."),
    (r"\.mlp\.norm\.", ".mlp_norm."), (r"\.mlp\.main\.0\.", ".mlp_in."), (r"\.mlp\.main\.2\.", ".mlp_out."),
)  # fmt: skip


def tarflow(
    weights: Mapping[str, np.ndarray], *, in_channels: int, img_size: int, patch_size: int, channels: int, num_blocks: int,
    layers_per_block: int, nvp: bool = True, num_classes: int = 0, head_dim: int = 64,
) -> tuple[TarFlow, dict[str, Any]]:  # fmt: skip
    """(network, variables); variables["prior"]["variance"] [T, D] is that of the latents, by which samples are drawn.

    head_dim is its MetaBlock's. Raises UserError for weights that do not fit.
    """
    net = TarFlow(
        img_size, in_channels, patch_size, channels, num_blocks, layers_per_block, channels // head_dim, not nvp, num_classes
    )
    used = dict(weights)
    variance = used.pop("var", np.ones(net.latent_shape, np.float32))

    def path(name: str) -> tuple[str, ...]:
        for pattern, replacement in NAMES:
            name = re.sub(pattern, replacement, name)
        return linen_path(name)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("class_embed"):
            return array[:, 0]
        return array if name.endswith("pos_embed") else to_linen(array, shape)

    shapes = param_shapes(net.init, jnp.zeros((1, img_size, img_size, in_channels)))
    return net, {"params": fill(shapes, used, path, layout), "prior": {"variance": variance}}
