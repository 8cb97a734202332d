"""Weights of pSp and e4e (eladrich/pixel2style2pixel, omertov/encoder4editing) -> `jgen.models.style_encoder`.

Their files hold an encoder, a generator and the mean style, which is added to the encoder's codes:
`part(weights, "encoder")` and `weights["latent_avg"]`. Widths and the images' side follow the weights.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, fill_collections, param_shapes, to_linen
from jgen.convert.projected_gan import renamed, without_counts
from jgen.errors import UserError
from jgen.models.irse import IRUnit
from jgen.models.style_encoder import BackboneEncoder, GradualStyleEncoder, LatentDiscriminator

Weights = Mapping[str, np.ndarray]
UNITS = {50: (3, 4, 14, 3), 100: (3, 13, 30, 3), 152: (3, 8, 36, 3)}
"""{num_layers: units of each level}."""
UNIT_LAYERS = {
    r"res_layer\.0": "norm1", r"res_layer\.1": "conv1", r"res_layer\.2": "act", r"res_layer\.3": "conv2",
    r"res_layer\.4": "norm2", r"res_layer\.5\.fc1": "squeeze", r"res_layer\.5\.fc2": "excite",
    r"shortcut_layer\.0": "shortcut", r"shortcut_layer\.1": "shortcut_norm",
}  # fmt: skip
RULES = (
    *((rf"body\.(\d+)\.{official}", rf"trunk/unit_\1/{ours}") for official, ours in UNIT_LAYERS.items()),
    *UNIT_LAYERS.items(),
    (r"input_layer\.0", "trunk/stem"), (r"input_layer\.1", "trunk/stem_norm"), (r"input_layer\.2", "trunk/stem_act"),
    (r"styles\.(\d+)\.linear", r"style_\1/linear"), (r"latlayer1", "lateral_0"), (r"latlayer2", "lateral_1"),
    (r"output_layer_2\.0", "norm"), (r"output_layer_2\.3", "hidden"),
)  # fmt: skip


def unit(weights: Weights, *, in_channel: int, depth: int, stride: int) -> tuple[IRUnit, dict[str, Any]]:
    """bottleneck_IR, or bottleneck_IR_SE where the weights have its last layer; and {"params", "batch_stats"}."""
    net = IRUnit(depth, stride, any(name.startswith("res_layer.5.") for name in weights))
    return net, _filled(net, weights, (1, 8, 8, in_channel))


def gradual_style_encoder(
    weights: Weights, *, num_layers: int = 50, mode: str = "ir_se", n_styles: int = 18, input_nc: int = 3
) -> tuple[GradualStyleEncoder, dict[str, Any]]:
    """pSp's GradualStyleEncoder or e4e's Encoder4Editing, and {"params", "batch_stats"}.

    n_styles: 2 log2(side) - 2, of the generator's side; 18 for 1024 pixels. Raises UserError for options of another network and
    for weights that don't fit.
    """
    if num_layers != 50:
        raise UserError(f"num_layers={num_layers}: must be 50, since the maps that styles read are at units 6, 20 and 23")
    squeeze, channels = _squeeze(mode), _channels(weights, num_layers)
    convs = [name for name in weights if name.startswith("styles.0.convs.") and name.endswith("weight")]
    w_dim = weights["styles.0.linear.weight"].shape[0] if convs else channels[-1]
    net = GradualStyleEncoder(n_styles, w_dim, (3, 7), channels, UNITS[num_layers], squeeze)
    side = 16 * 2 ** len(convs)  # 256 of the authors' images
    return net, _filled(net, weights, (1, side, side, input_nc))


def backbone_encoder(
    weights: Weights, *, num_layers: int = 50, mode: str = "ir", input_nc: int = 3
) -> tuple[BackboneEncoder, dict[str, Any]]:
    """BackboneEncoderUsingLastLayerIntoW or, where the weights have its layers, ...IntoWPlus; and {"params", "batch_stats"}."""
    if num_layers not in UNITS:
        raise UserError(f"num_layers={num_layers}: must be {', '.join(map(str, UNITS))}")
    squeeze, channels = _squeeze(mode), _channels(weights, num_layers)
    rows = weights["linear.weight"].shape[0] // channels[-1] if "output_layer_2.3.weight" in weights else None
    net = BackboneEncoder(channels[-1], rows, channels, UNITS[num_layers], squeeze)
    return net, _filled(net, weights, (1, 32, 32, input_nc))


def latent_discriminator(
    weights: Weights, *, style_dim: int = 512, n_mlp: int = 4
) -> tuple[LatentDiscriminator, dict[str, Any]]:
    """e4e's LatentCodesDiscriminator and {"params"}."""
    net = LatentDiscriminator(style_dim, n_mlp)

    def path(name: str) -> Path:
        layer, leaf = name.removeprefix("mlp.").split(".")
        return f"dense_{int(layer) // 2}", leaf

    layout = lambda name, array, shape: to_linen(array, shape)  # noqa: E731
    return net, {"params": fill(param_shapes(net.init, jnp.zeros((1, style_dim))), weights, path, layout)}


def _squeeze(mode: str) -> bool:
    if mode not in ("ir", "ir_se"):
        raise UserError(f"mode={mode}: must be ir or ir_se")
    return mode == "ir_se"


def _channels(weights: Weights, num_layers: int) -> tuple[int, ...]:
    """The widths of the levels, of the last convolution of each."""
    last = [f"body.{n - 1}.res_layer.3.weight" for n in np.cumsum(UNITS[num_layers])]
    missing = [name for name in last if name not in weights]
    if missing:
        raise UserError(f"weights have no {missing[0]}: not those of an encoder of {num_layers} layers")
    return tuple(weights[name].shape[0] for name in last)


def _filled(net: nn.Module, weights: Weights, shape: tuple[int, ...]) -> dict[str, Any]:
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros(shape), train=False))

    def path(name: str) -> Path:
        head, _, rest = name.partition(".convs.")
        if rest:  # a leaky ReLU stands between two convolutions
            number, leaf = rest.split(".")
            return head.replace("styles.", "style_"), f"conv_{int(number) // 2}", leaf
        found = renamed(name, RULES)
        return (*found[:-1], "slope") if found[-2].endswith("act") else found

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if name == "output_layer_2.3.weight":  # features are flattened in the order C, H, W there
            return array.reshape(len(array), -1, 7, 7).transpose(2, 3, 1, 0).reshape(shape)
        return to_linen(array, shape)

    return fill_collections(made, without_counts(weights), path, layout)
