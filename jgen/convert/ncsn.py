"""Weights of Song & Ermon's NCSN and NCSNv2 (ermongroup) -> `jgen.models.ncsn`.

The arguments are the `model` section of their configurations, their `data` section, and the name of the network's class.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import check_choice
from jgen.models.ncsn import NCSN, Depth, NCSNv2
from jgen.models.ncsn_norm import Normalization

V1: dict[str, tuple[Depth, Normalization]] = {
    "CondRefineNetDilated": ("", "InstanceNorm++"),
    "CondRefineNetDeeperDilated": ("deeper", "InstanceNorm"),
    "NCSN": ("", "InstanceNorm++"),
    "NCSNdeeper": ("deeper", "InstanceNorm++"),
}
"""{class in the authors' code: (depth, normalization that it has where the configuration names none)}; the first two are of the
repository of version 1, whose configurations have neither normalization nor nonlinearity, the others of that of version 2."""
V2: dict[str, Depth] = {"NCSNv2": "", "NCSNv2Deeper": "deeper", "NCSNv2Deepest": "deepest"}
"""{class in the authors' code: depth}; the authors take them for CIFAR-10 and CelebA, for LSUN, and for FFHQ."""

ALLOWED: dict[str, tuple[Any, ...] | None] = {
    # Version 2 takes sigma itself in place of a number in this table, and version 1 a number alone.
    "sigma_begin": ANY, "sigma_end": ANY, "sigma_dist": ("geometric", "uniform"),
    "ema": ANY, "ema_rate": ANY,
    "spec_norm": (False,), "batch_norm": (False,),
    "dataset": ANY, "category": ANY, "image_size": ANY, "random_flip": ANY, "num_workers": ANY,
    "uniform_dequantization": ANY, "gaussian_dequantization": ANY,
}  # fmt: skip
"""Options that say nothing about the network, or that must have this value."""
HEEDED = ("ngf", "num_classes", "channels", "logit_transform", "rescaled", "nonlinearity", "normalization")


def ncsn(
    weights: Mapping[str, np.ndarray], *, network: str = "CondRefineNetDilated", **config: Any
) -> tuple[NCSN, dict[str, Any]]:
    """Version 1 and its {"params": ...}; network: the class in the authors' code, one of `V1`.

    config: ngf (128), num_classes (10), channels (3), logit_transform and rescaled (False; either means that images go in as
    they are, in place of [0, 1]), nonlinearity and normalization; others of the authors' options change nothing here. Raises
    UserError for an option that they don't have, a value that jgen's network can't have, and weights that do not fit.
    """
    check_choice(V1, network=network)
    depth, normalization = V1[network]
    fields = _fields(config, depth, normalization)
    net = NCSN(**fields, levels=config.get("num_classes", 10))
    return net, _variables(net, weights, jnp.zeros(1, jnp.int32), fields["out_channels"])


def ncsnv2(weights: Mapping[str, np.ndarray], *, network: str = "NCSNv2", **config: Any) -> tuple[NCSNv2, dict[str, Any]]:
    """Version 2, as `ncsn`; network: one of `V2`. Its table of sigmas is left out, since jgen's network takes sigma itself."""
    check_choice(V2, network=network)
    # Version 2 has the option of spectral norms in its configurations, but does not read it.
    fields = _fields({name: value for name, value in config.items() if name != "spec_norm"}, V2[network], "InstanceNorm++")
    if fields["normalization"] == "InstanceNorm":
        # The authors construct the last norm with the number of levels second, and of PyTorch's InstanceNorm2d that is epsilon.
        fields["last_epsilon"] = float(config.get("num_classes", 10))
    net = NCSNv2(**fields)
    plain = {k: v for k, v in weights.items() if _plain(k) != "sigmas"}
    return net, _variables(net, plain, jnp.ones(1), fields["out_channels"])


def _fields(config: Mapping[str, Any], depth: Depth, normalization: Normalization) -> dict[str, Any]:
    """The fields that both versions have."""
    kinds = ("InstanceNorm++", "InstanceNorm", "VarianceNorm", "NoneNorm")
    acts = ("elu", "relu", "lrelu", "swish", "silu")
    act = str(config.get("nonlinearity", "elu")).lower()
    check_options(
        {**config, "nonlinearity": act},
        HEEDED,
        {**ALLOWED, "normalization": kinds, "nonlinearity": acts},
        "NCSN's configurations",
    )
    as_they_are = config.get("logit_transform", False) or config.get("rescaled", False)
    return dict(
        channels=config.get("ngf", 128),
        out_channels=config.get("channels", 3),
        rescale=not as_they_are,
        depth=depth,
        nonlinearity=act,
        normalization=config.get("normalization", normalization),
    )


def _plain(name: str) -> str:
    return name.removeprefix("module.")


def _variables(net: Any, weights: Mapping[str, np.ndarray], level: Any, channels: int) -> dict[str, Any]:
    shapes = param_shapes(net.init, jnp.zeros((1, 8, 8, channels)), level)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if ".embed." in name else to_linen(array, shape)

    return {"params": fill(shapes, weights, lambda name: linen_path(_plain(name)), layout)}
