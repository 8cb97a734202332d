"""LPIPS (Zhang et al. 2018, arXiv:1801.03924) of pairs of images, from the weight files of its authors."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jgen.convert import feature_nets, load_weights
from jgen.errors import UserError
from jgen.models.perceptual import LPIPS
from jgen.types import Array, PyTree

Distance = Callable[[PyTree, Array, Array], Array]
"""(weights, images [B, H, W, C], images) -> [B], of images in [-1, 1]."""


def open_lpips(trunk: str, heads: str) -> tuple[Distance, PyTree]:
    """LPIPS v0.1 as a pure function, and its weights.

    trunk: torchvision's VGG16, AlexNet or SqueezeNet weights, a .pth file. heads: vgg.pth, alex.pth or squeeze.pth of the
    lpips package. Grey images count as three equal channels. The distance raises UserError for images that the trunk pools
    away. Raises UserError where a file is missing or another network's.
    """
    net, variables = lpips_network(trunk, heads)

    def distance(weights: PyTree, a: Array, b: Array) -> Array:
        a, b = (jnp.repeat(x, 3, -1) if x.shape[-1] == 1 else x for x in (a, b))
        maps: Any = jax.eval_shape(lambda w, x: net.apply(w, x, x, method="maps"), weights, a)
        if any(0 in m.shape for m in maps):
            raise UserError(f"trunk={trunk}: images of {a.shape[1]}x{a.shape[2]} are too small for this network")
        return net.apply(weights, a, b)  # pyright: ignore[reportReturnType]

    return distance, variables


def lpips_network(trunk: str, heads: str) -> tuple[LPIPS, PyTree]:
    """LPIPS's network and its variables, of files as `open_lpips` takes them, which raises the same errors."""
    if not (trunk and heads):
        raise UserError(f"{'heads' if trunk else 'trunk'}: LPIPS needs both its trunk and its heads, files of weights")
    return feature_nets.lpips(load_weights(trunk) | load_weights(heads))
