"""Weights of StyleGAN-XL -> `jgen.models.gan.stylegan_xl`. The arguments are those of its constructors.

`load_weights` reads the published .pkl files without running code from them. The heads of its discriminator are read by
`projected_gan.discriminator` with fixed=True, backbone by backbone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.options import ANY, check_options, required
from jgen.convert.stylegan3 import DESIGN, NETWORK, PRECISION, TABLE, filled, layers_of
from jgen.errors import UserError
from jgen.models.gan.alias_free_layers import Layer, grown_layers
from jgen.models.gan.stylegan_xl import Generator

MAPPING = ("num_layers", "lr_multiplier", "w_avg_beta")
STEM = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
GROWTH = ("img_resolution", "head_layers")
HEAD = {"conv_clamp": 256, "magnitude_ema_beta": 0.999}
"""Settings of grown layers, whatever their stem has; here all layers of a network have the same."""


def grown(stem: Sequence[Layer], arguments: Mapping[str, Any], **growth: Any) -> tuple[Layer, ...]:
    """All layers of a generator grown from a stem of layers; arguments: the first stem's, whose table goes on.

    growth: those of the super-resolution generator; up_factor, where given, must agree with the resolution. Raises UserError as
    `grown_layers` does.
    """
    check_options(growth, GROWTH, {"up_factor": (2, 4, 8, 16), "path_stem": ANY}, "StyleGAN-XL's SuperresGenerator")
    required(growth, GROWTH, "StyleGAN-XL's SuperresGenerator")
    side = growth["img_resolution"]
    if side != stem[-1].out_size * growth.get("up_factor", side // stem[-1].out_size):
        raise UserError(f"up_factor={growth['up_factor']}: {stem[-1].out_size} pixels grow to {side} by another")
    own = {k: arguments[k] for k in ("channel_base", "channel_max", "num_critical", "last_stopband_rel") if k in arguments}
    kept, new = grown_layers(stem, side, stem[-1].out_channels, growth["head_layers"], **own)
    return (*kept, *new)


def generator(
    weights: Mapping[str, np.ndarray],
    *,
    z_dim: int = 64,
    c_dim: int = 0,
    w_dim: int = 512,
    img_resolution: int,
    img_channels: int = 3,
    mapping_kwargs: Mapping[str, Any] | None = None,
    growth: Sequence[Mapping[str, Any]] = (),
    **synthesis: Any,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "buffers", "w_avg" [D] or [classes, D], "w_avg_beta"}.

    The arguments are those of the stem; growth: those of each super-resolution generator on top of it, smallest first. Raises
    UserError that names an argument which the constructors don't have, one that lists missing or left-over weights, and one for
    a table of other classes or filters.
    """
    mapping = dict(mapping_kwargs or {})
    check_options(mapping, MAPPING, {"rand_embedding": ANY}, "mapping_kwargs")
    check_options(synthesis, (*TABLE, *DESIGN, *NETWORK), PRECISION, "StyleGAN-XL's Generator")
    layers = layers_of(img_resolution, img_channels, synthesis)
    for name, default in HEAD.items():
        if growth and synthesis.get(name, default) != default:
            raise UserError(f"{name}={synthesis[name]}: must be {default} in a stem that grows, as in the layers grown on it")
    for step in growth:
        layers = grown(layers, synthesis, **step)
    table = weights.get("mapping.embed.weight")
    net = Generator(
        layers, z_dim, c_dim, w_dim, mapping.get("num_layers", 2), mapping.get("lr_multiplier", 0.01),
        synthesis.get("output_scale", 0.25), synthesis.get("conv_clamp", 256), synthesis.get("magnitude_ema_beta", 0.999),
        embedding=320 if table is None else table.shape[-1],
    )  # fmt: skip
    label = jnp.zeros(1, jnp.int32) if c_dim else None
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, z_dim)), label))
    used = {_ours(name): array for name, array in weights.items() if c_dim or not name.startswith("mapping.embed")}
    shape = (c_dim, w_dim) if c_dim else (w_dim,)
    if "mapping.w_avg" not in weights or weights["mapping.w_avg"].shape != shape:
        raise UserError(f"weights do not match the network: mapping.w_avg must be of shape {shape}")
    if table is not None and c_dim:
        used["mapping.embedding"] = table[:c_dim]
    return net, {
        **filled(made, used, layers),
        "w_avg": jnp.asarray(weights["mapping.w_avg"], jnp.float32),
        "w_avg_beta": mapping.get("w_avg_beta", 0.998),
    }


def _ours(name: str) -> str:
    return "mapping.embedding" if name == "mapping.embed.weight" else name
