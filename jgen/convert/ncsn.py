"""Weights of Song & Ermon's NCSN and NCSNv2 (ermongroup) -> `jgen.models.ncsn`.

The arguments are the `model` section of their configurations, and from the `data` section channels and rescaled.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.models.ncsn import NCSN, NCSNv2


def ncsn(
    weights: Mapping[str, np.ndarray],
    *,
    ngf: int = 128,
    num_classes: int = 10,
    channels: int = 3,
    rescaled: bool = False,
    **_: Any,
) -> tuple[NCSN, dict[str, Any]]:
    """Version 1 and its {"params": ...}; rescaled: images come in [-1, 1]. Raises UserError for weights that do not fit."""
    net = NCSN(ngf, channels, not rescaled, num_classes)
    return net, _variables(net, weights, jnp.zeros(1, jnp.int32), channels)


def ncsnv2(
    weights: Mapping[str, np.ndarray], *, ngf: int = 128, channels: int = 3, rescaled: bool = False, **_: Any
) -> tuple[NCSNv2, dict[str, Any]]:
    """Version 2, as `ncsn`; its table of sigmas is left out, since the network takes sigma itself."""
    net = NCSNv2(ngf, channels, not rescaled)
    return net, _variables(net, {k: v for k, v in weights.items() if _plain(k) != "sigmas"}, jnp.ones(1), channels)


def _plain(name: str) -> str:
    return name.removeprefix("module.")


def _variables(net: Any, weights: Mapping[str, np.ndarray], level: Any, channels: int) -> dict[str, Any]:
    shapes = param_shapes(net.init, jnp.zeros((1, 8, 8, channels)), level)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if ".embed." in name else to_linen(array, shape)

    return {"params": fill(shapes, weights, lambda name: linen_path(_plain(name)), layout)}
