"""Weights of ajbrock/BigGAN-PyTorch (BigGAN, BigGAN-deep, SAGAN's settings) and of IC-GAN's and U-Net GAN's copies of it.

The arguments are those of the authors' constructors, with their defaults. Variables are {"params", "batch_stats", "spectral"}
of G and {"params", "spectral"} of D; the counters of standing statistics are left out.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jgen.convert.common import Path, fill, linen_path, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.gan import biggan, biggan_deep, unetgan
from jgen.nn.spectral import SpectralNorm

Weights = Mapping[str, np.ndarray]
Options = dict[str, tuple[Any, ...] | None]
RELU = ("relu", "inplace_relu", "ir", "ReLU()", "ReLU(inplace=True)", "ReLU(inplace=False)")
"""The author's names of ReLU, and what PyTorch prints of it."""
LEAKY = re.compile(r"LeakyReLU\(negative_slope=([\d.e-]+)(?:, inplace=(?:True|False))?\)")


def without_effect(player: str) -> Options:
    """Options of training, and those that the constructors read and never use."""
    own = ("lr", "B1", "B2", "mixed_precision", "fp16", "kernel_size", "init")
    return {name: ANY for name in ("adam_eps", "skip_init", "no_optim", *(f"{player}_{kind}" for kind in own))} | {
        f"{player}_activation": RELU, f"{player}_nl": RELU, "norm_style": ("bn",), "output_dim": (1,),
        "embedded_optimizer": ANY, "cross_replica": (False, True),
    }  # fmt: skip


def slope(option: str, activation: str) -> float:
    """The slope below 0 of an activation by its name, or as PyTorch prints it. Raises UserError for any other.

    >>> slope("G_activation", "ReLU()"), slope("G_activation", "LeakyReLU(negative_slope=0.2)")
    (0.0, 0.2)
    """
    if activation in RELU:
        return 0.0
    if not (found := LEAKY.fullmatch(activation)):
        raise UserError(f"{option}={activation}: must be {', '.join(RELU)} or LeakyReLU(negative_slope=...)")
    return float(found[1])


def sides(attention: Any) -> tuple[int, ...]:
    """The sides of an option such as "32_64"; "0" is none. Raises UserError for anything else."""
    parts = str(attention).split("_")
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"attention={attention}: must be sides joined by underscores, such as 32_64, or 0")
    return tuple(int(part) for part in parts if int(part))


def spectral(param: str, epsilon: float, values: int, iterations: int, name: str) -> SpectralNorm | None:
    """The norm of an option "SN"; any other value stands for none in G. Raises UserError for counts below 1."""
    if param != "SN":
        return None
    if values < 1 or iterations < 1:
        raise UserError(f"num_{name}_SVs={values}, num_{name}_SV_itrs={iterations}: must be at least 1")
    return SpectralNorm(epsilon, values, iterations)


def generator(
    weights: Weights,
    *,
    G_ch: int = 64,
    dim_z: int = 128,
    bottom_width: int = 4,
    resolution: int = 128,
    G_attn: str = "64",
    n_classes: int = 1000,
    num_G_SVs: int = 1,
    num_G_SV_itrs: int = 1,
    G_shared: bool = True,
    shared_dim: int = 0,
    hier: bool = False,
    mybn: bool = False,
    BN_eps: float = 1e-5,
    SN_eps: float = 1e-12,
    G_param: str = "SN",
    G_activation: str = "relu",
    class_cond: bool = True,
    instance_cond: bool = False,
    G_shared_feat: bool = True,
    shared_dim_feat: int = 2048,
    **other: Any,
) -> tuple[biggan.Generator, dict[str, Any]]:
    """The generator; dim_z is rounded down to a multiple of the chunks. The last four arguments are IC-GAN's; the embedding of
    a condition that the network isn't given is left out.

    Raises UserError that names an argument which the constructor doesn't have or which makes a network that jgen can't,
    and one that lists missing or left-over weights.
    """
    check_options(other, (), without_effect("G"), "BigGAN's Generator")
    shared = G_shared and (class_cond or instance_cond)
    net = biggan.Generator(
        resolution, _channels(weights, "output_layer.2.weight"), G_ch, biggan.chunked(dim_z, resolution) if hier else dim_z,
        n_classes if class_cond else 0, sides(G_attn), hier, shared, shared_dim or dim_z,
        shared_dim_feat if instance_cond else 0, spectral(G_param, SN_eps, num_G_SVs, num_G_SV_itrs, "G"),
        bottom=bottom_width, bn_epsilon=BN_eps, unbiased=not mybn, slope=slope("G_activation", G_activation),
        embed_features=G_shared_feat,
    )  # fmt: skip
    inputs: dict[str, Any] = {"label": jnp.zeros((1, n_classes))} if class_cond else {}
    if instance_cond:
        embedding = weights.get("shared_feat.weight")  # without one the features are as large as the norms take them
        inputs["features"] = jnp.zeros((1, shared_dim_feat if embedding is None else embedding.shape[1]))
    unused = ("shared.",) * (not class_cond) + ("shared_feat.",) * (not instance_cond)  # IC-GAN's has both in any case
    # Without a shared embedding IC-GAN's norms have shared_dim rows, of which no class reaches those from n_classes on.
    of_classes = slice(n_classes) if class_cond and not shared else slice(None)
    weights = {
        name: array[of_classes] if name.endswith((".gain.weight", ".bias.weight")) else array
        for name, array in weights.items()
        if not name.startswith(unused)
    }
    return net, filled(net, weights, GENERATOR, jnp.zeros((1, net.z_dim)), **inputs)


def discriminator(
    weights: Weights,
    *,
    D_ch: int = 64,
    D_wide: bool = True,
    resolution: int = 128,
    D_attn: str = "64",
    n_classes: int = 1000,
    num_D_SVs: int = 1,
    num_D_SV_itrs: int = 1,
    SN_eps: float = 1e-12,
    D_activation: str = "relu",
    class_cond: bool = True,
    instance_cond: bool = False,
    instance_sz: int = 2048,
    **other: Any,
) -> tuple[biggan.Discriminator, dict[str, Any]]:
    """The discriminator, as `generator`; the last three arguments are IC-GAN's."""
    check_options(other, (), without_effect("D") | {"D_param": ("SN",)}, "BigGAN's Discriminator")
    net = biggan.Discriminator(
        resolution, D_ch, n_classes if class_cond else 0, sides(D_attn), instance_cond, D_wide,
        spectral("SN", SN_eps, num_D_SVs, num_D_SV_itrs, "D"), slope=slope("D_activation", D_activation),
    )  # fmt: skip
    inputs: dict[str, Any] = {"label": jnp.zeros((1, n_classes))} if class_cond else {}
    if instance_cond:
        inputs["features"] = jnp.zeros((1, instance_sz))
    channels = weights["blocks.0.0.conv1.weight"].shape[1] if "blocks.0.0.conv1.weight" in weights else 3
    return net, filled(net, weights, DISCRIMINATOR, jnp.zeros((1, resolution, resolution, channels)), **inputs)


def deep_generator(
    weights: Weights,
    *,
    G_ch: int = 128,
    G_depth: int = 2,
    dim_z: int = 128,
    bottom_width: int = 4,
    resolution: int = 512,
    G_attn: str = "64",
    n_classes: int = 1000,
    num_G_SVs: int = 1,
    num_G_SV_itrs: int = 1,
    shared_dim: int = 0,
    mybn: bool = False,
    BN_eps: float = 1e-5,
    SN_eps: float = 1e-12,
    G_param: str = "SN",
    G_activation: str = "relu",
    **other: Any,
) -> tuple[biggan_deep.Generator, dict[str, Any]]:
    """BigGAN-deep's generator, as `generator`. G_shared and hier must be true: its first layer takes both always."""
    limits: Options = {"G_shared": (True,), "hier": (True,)}
    check_options(other, (), without_effect("G") | limits, "BigGAN-deep's Generator")
    net = biggan_deep.Generator(
        resolution, _channels(weights, "output_layer.2.weight"), G_ch, dim_z, n_classes, sides(G_attn), shared_dim or dim_z,
        G_depth, spectral(G_param, SN_eps, num_G_SVs, num_G_SV_itrs, "G"), bottom=bottom_width, bn_epsilon=BN_eps,
        unbiased=not mybn, slope=slope("G_activation", G_activation),
    )  # fmt: skip
    return net, filled(net, weights, GENERATOR, jnp.zeros((1, dim_z)), label=jnp.zeros((1, n_classes)))


def deep_discriminator(
    weights: Weights,
    *,
    D_ch: int = 64,
    D_depth: int = 2,
    resolution: int = 128,
    D_attn: str = "64",
    n_classes: int = 1000,
    num_D_SVs: int = 1,
    num_D_SV_itrs: int = 1,
    SN_eps: float = 1e-12,
    **other: Any,
) -> tuple[biggan_deep.Discriminator, dict[str, Any]]:
    """BigGAN-deep's discriminator, as `generator`; its blocks don't heed D_wide."""
    limits: Options = {"D_wide": ANY, "D_param": ("SN",)}
    check_options(other, (), without_effect("D") | limits, "BigGAN-deep's Discriminator")
    norm = spectral("SN", SN_eps, num_D_SVs, num_D_SV_itrs, "D")
    net = biggan_deep.Discriminator(resolution, D_ch, n_classes, sides(D_attn), D_depth, norm)
    channels = weights["input_conv.weight"].shape[1] if "input_conv.weight" in weights else 3
    image = jnp.zeros((1, resolution, resolution, channels))
    return net, filled(net, weights, DISCRIMINATOR, image, label=jnp.zeros((1, n_classes)))


def unet_discriminator(
    weights: Weights,
    *,
    D_ch: int = 64,
    D_wide: bool = True,
    resolution: int = 128,
    D_attn: str = "64",
    n_classes: int = 1000,
    num_D_SVs: int = 1,
    num_D_SV_itrs: int = 1,
    SN_eps: float = 1e-12,
    unconditional: bool,
    **other: Any,
) -> tuple[unetgan.Discriminator, dict[str, Any]]:
    """U-Net GAN's discriminator, as `generator`; the weights of its layer "linear", which it never uses, are left out."""
    limits: Options = {"D_param": ("SN",), "decoder_skip_connection": (True,)}
    check_options(other, (), without_effect("D") | limits, "U-Net GAN's Unet_Discriminator")
    norm, classes = spectral("SN", SN_eps, num_D_SVs, num_D_SV_itrs, "D"), 0 if unconditional else n_classes
    net = unetgan.Discriminator(resolution, D_ch, classes, sides(D_attn), D_wide, norm)
    channels = weights["blocks.0.0.conv1.weight"].shape[1] if "blocks.0.0.conv1.weight" in weights else 3
    image, label = jnp.zeros((1, resolution, resolution, channels)), jnp.zeros((1, classes)) if classes else None
    names = {f"blocks.{2 * len(unetgan.ENCODER.get(resolution, ()))}": "pixels"}
    return net, filled(net, {k: v for k, v in weights.items() if not k.startswith("linear.")}, names, image, label)


def _channels(weights: Weights, name: str) -> int:
    """Channels of the images; 3 where the weights have no such layer, which `filled` then reports."""
    return len(weights[name]) if name in weights else 3


Names = Mapping[str, str]
GENERATOR = {"shared": "embedding", "shared_feat": "feature_embedding", "output_layer.0": "bn", "output_layer.2": "rgb"}
"""{an official module: its name here}; all others have one name."""
DISCRIMINATOR = {"linear": "head.linear", "embed": "head.embed", "linear_feat": "head.linear_feat"}
STATISTICS = {"stored_mean": "mean", "running_mean": "mean", "stored_var": "var", "running_var": "var"}
COUNTERS = (".accumulation_counter", ".num_batches_tracked")


def state_names(weights: Weights) -> dict[str, np.ndarray]:
    """The weights without counters, with u0, u1, ... of a layer as one array u [values, outputs], and sv0, ... as sv."""
    joined: dict[str, dict[int, np.ndarray]] = {}
    for name, array in weights.items():
        stem, index = re.fullmatch(r"(.*\.(?:u|sv)|.*?)(\d*)", name).groups()  # pyright: ignore[reportOptionalMemberAccess]
        is_state = stem.endswith((".u", ".sv")) and index
        if not name.endswith(COUNTERS):
            joined.setdefault(stem if is_state else name, {})[int(index) if is_state else 0] = array
    return {
        name: np.concatenate([parts[i] for i in sorted(parts)]) if name.endswith((".u", ".sv")) else parts[0]
        for name, parts in joined.items()
    }


def path_of(names: Names) -> Callable[[str], Path]:
    """Official names -> (collection, path)."""

    def path(name: str) -> Path:
        module, _, leaf = name.rpartition(".")
        module = module.removesuffix(".bn") if leaf in STATISTICS else module
        own = tuple(names[module].split(".")) if module in names else linen_path(module)
        own = () if not module else own
        if leaf in STATISTICS:
            return "batch_stats", *own, STATISTICS[leaf]
        if leaf in ("u", "sv"):
            return "spectral", *own, leaf
        return "params", *own, "scale" if leaf == "gain" else leaf

    return path


def filled(net: nn.Module, weights: Weights, names: Names, *inputs: Any, **kwargs: Any) -> dict[str, Any]:
    """The variables of a network from official weights. Raises UserError that lists those missing or left over."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, **kwargs))
    tables = {path[:-1] for path in traverse_util.flatten_dict(shapes) if path[-1] == "embedding"}
    path = path_of(names)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        as_it_is = name.endswith(".u") or path(name)[:-1] in tables
        return array if as_it_is else to_linen(array, shape)

    return fill(shapes, state_names(weights), path, layout)
