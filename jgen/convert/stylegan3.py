"""Weights of NVIDIA's StyleGAN3 -> `jgen.models.gan.stylegan3`. The arguments are those of its constructors.

`load_weights` reads the published .pkl files without running code from them; their names begin with "G_ema.", "G." and "D.".
Discriminators are StyleGAN2's: `jgen.convert.stylegan2.discriminator` reads them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill_collections, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.gan.alias_free_layers import Design, Layer, alias_free_layers
from jgen.models.gan.stylegan3 import Generator

MAPPING = ("num_layers", "lr_multiplier", "w_avg_beta")
MAPPING_ANY: dict[str, Any] = {"freeze_layers": ANY, "freeze_embed": ANY}
"""How weights are trained, which changes no image."""
TABLE = (
    "channel_base", "channel_max", "num_layers", "num_critical", "first_cutoff", "first_stopband", "last_stopband_rel",
)  # fmt: skip
DESIGN = ("conv_kernel", "filter_size", "lrelu_upsampling", "use_radial_filters", "margin_size")
NETWORK = ("output_scale", "conv_clamp", "magnitude_ema_beta")
PRECISION: dict[str, Any] = {"num_fp16_res": ANY}
"""How the authors compute; here it is in float32, whatever it says."""
OURS = ("transform", "up_filter", "down_filter", "w_avg")
"""Buffers that are no part of the variables: a user's, and those that follow from the arguments."""


def layers_of(img_resolution: int, img_channels: int, synthesis: Mapping[str, Any]) -> tuple[Layer, ...]:
    """The layers of the constructor's arguments."""
    table = {name: synthesis[name] for name in TABLE if name in synthesis}
    design = Design(**{name: synthesis[name] for name in DESIGN if name in synthesis})
    return alias_free_layers(img_resolution, img_channels, **table, design=design)


def generator(
    weights: Mapping[str, np.ndarray],
    *,
    z_dim: int = 512,
    c_dim: int = 0,
    w_dim: int = 512,
    img_resolution: int,
    img_channels: int = 3,
    mapping_kwargs: Mapping[str, Any] | None = None,
    **synthesis: Any,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "buffers", "w_avg" [D], "w_avg_beta", "transform" [3, 3]: the user's in the file}.

    Raises UserError that names an argument which the constructors don't have, one that lists missing or left-over weights, and
    one for filters that the arguments don't lead to.
    """
    mapping = dict(mapping_kwargs or {})
    check_options(mapping, MAPPING, MAPPING_ANY, "mapping_kwargs")
    check_options(synthesis, (*TABLE, *DESIGN, *NETWORK), PRECISION, "StyleGAN3's Generator")
    layers = layers_of(img_resolution, img_channels, synthesis)
    net = Generator(
        layers, z_dim, c_dim, w_dim, mapping.get("num_layers", 2), mapping.get("lr_multiplier", 0.01),
        synthesis.get("output_scale", 0.25), synthesis.get("conv_clamp", 256), synthesis.get("magnitude_ema_beta", 0.999),
    )  # fmt: skip
    label = jnp.zeros((1, c_dim)) if c_dim else None
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, z_dim)), label))
    if "mapping.w_avg" not in weights:
        raise UserError("weights do not match the network: missing mapping.w_avg")
    return net, {
        **filled(made, weights, layers),
        "w_avg": jnp.asarray(weights["mapping.w_avg"], jnp.float32),
        "w_avg_beta": mapping.get("w_avg_beta", 0.998),
        "transform": jnp.asarray(weights.get("synthesis.input.transform", np.eye(3)), jnp.float32),
    }


def filled(made: Any, weights: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> dict[str, Any]:
    """{"params", "buffers"} of shapes `made`, from the official names. Raises UserError as `generator` does."""
    check_filters(weights, layers)
    used = {k: v for k, v in weights.items() if k.rsplit(".", 1)[-1] not in OURS}

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if name.endswith((".freqs", ".embedding")) else to_linen(array, shape)

    return fill_collections(made, used, lambda name: tuple(name.split(".")), layout)


def check_filters(weights: Mapping[str, np.ndarray], layers: Sequence[Layer]) -> None:
    """Raises UserError where a filter of the file is not the one that the arguments lead to."""
    for layer in layers:
        for kind, want in (("up_filter", layer.up_filter), ("down_filter", layer.down_filter)):
            name = f"synthesis.{layer.name}.{kind}"
            found = weights.get(name)
            if found is not None and (want is None or found.shape != want.shape or np.abs(found - want).max() > 1e-6):
                raise UserError(f"weight {name}: not the filter that these arguments lead to; check cut-offs, taps and margin")
