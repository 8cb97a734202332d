"""Weights of Projected GAN and Diffusion-GAN -> `jgen.models.gan.fastgan` and `projected`, by the names of their state dicts.

The arguments are those of the authors' constructors. The feature networks are `feature_nets.efficientnet_lite0` and `deit`.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill_collections, to_linen
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.deit import TokenMaps
from jgen.models.gan.fastgan import Generator
from jgen.models.gan.projected import MultiScale, Projection

Weights = Mapping[str, np.ndarray]
LEAVES = {
    "weight_orig": "kernel", "weight_u": "u", "weight_v": "v", "running_mean": "mean", "running_var": "var",
    "stored_mean": "mean", "stored_var": "var",
}  # fmt: skip
"""PyTorch's last words of a name -> ours."""
MIXINGS = ("none", "channels", "scales")
"""By the authors' proj_type."""


def spectral_layout(weights: Weights, transposed: str = "") -> Any:
    """The layout of arrays with spectral norms; transposed: the name of a transposed convolution's weight."""

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("weight_v"):
            kernel = weights[name.removesuffix("_v") + "_orig"]
            inputs = (kernel.shape[0], *kernel.shape[2:]) if name.startswith(transposed or "-") else kernel.shape[1:]
            return array.reshape(inputs).transpose(*range(1, len(inputs)), 0).reshape(-1)
        if transposed and name == f"{transposed}.weight_orig":
            return array.transpose(2, 3, 0, 1)
        return array if name.endswith("embed.weight") else to_linen(array, shape)

    return layout


def renamed(name: str, rules: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The path of an official name: the first rule (pattern, replacement) that fits its layer, and our word for its end."""
    layer, _, leaf = name.rpartition(".")
    for pattern, path in rules:
        if re.fullmatch(pattern, layer):
            layer = re.sub(pattern, path, layer)
            break
    else:
        layer = layer.replace(".", "/")
    return (*layer.split("/"), LEAVES.get(leaf, leaf))


def without_counts(weights: Weights) -> dict[str, np.ndarray]:
    """The weights without batch norms' counts of batches."""
    return {name: array for name, array in weights.items() if not name.endswith("num_batches_tracked")}


FASTGAN = (
    (r"init\.init\.0", "init"), (r"init\.init\.1", "init_norm"), (r"(se_\d+)\.main\.1", r"\1/conv1"),
    (r"(se_\d+)\.main\.3", r"\1/conv2"), (r"(feat_\d+)\.conv", r"\1/conv1"), (r"(feat_\d+)\.bn", r"\1/norm1"),
    (r"(feat_\d+)\.bn\.(gain|bias)", r"\1/norm1/\2"), (r"(feat_\d+)\.bn(\d)", r"\1/norm\2"),
    (r"(feat_\d+)\.bn(\d)\.(gain|bias)", r"\1/norm\2/\3"), (r"(feat_\d+)\.1", r"\1/conv1"), (r"(feat_\d+)\.5", r"\1/conv2"),
    (r"(feat_\d+)\.7", r"\1/norm2"),
)  # fmt: skip
"""Layers of the generator by official name."""


def generator(
    weights: Weights,
    *,
    z_dim: int = 256,
    c_dim: int = 0,
    w_dim: int = 0,
    img_resolution: int = 256,
    img_channels: int = 3,
    ngf: int = 128,
    cond: int = 0,
    mapping_kwargs: Mapping[str, Any] | None = None,
    synthesis_kwargs: Mapping[str, Any] | None = None,
) -> tuple[Generator, dict[str, Any]]:
    """FastGAN's generator, and {"params", "batch_stats", "spectral"}; c_dim and w_dim change nothing, as in the authors' code.

    Layers that the resolution leaves unused are left out. Raises UserError for an option that the constructor doesn't have, and
    one that lists missing or left-over weights.
    """
    check_options(mapping_kwargs or {}, (), {"num_layers": ANY}, "mapping_kwargs")  # there is no mapping
    synthesis = dict(synthesis_kwargs or {})
    check_options(synthesis, ("lite", "num_classes"), {}, "synthesis_kwargs")
    lite, classes = bool(synthesis.get("lite", False)), synthesis.get("num_classes", 1000) if cond else 0
    net = Generator(img_resolution, img_channels, ngf, classes, lite)
    label = jnp.zeros(1, jnp.int32) if classes else None
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, z_dim)), label, train=True))
    unused = tuple(f"{kind}_{side}." for kind in ("feat", "se") for side in (16, 32, 64, 128, 256) if side > img_resolution)
    used = {k.removeprefix("synthesis."): v for k, v in without_counts(weights).items()}
    used = {k: v for k, v in used.items() if not k.startswith(unused)}

    def path(name: str) -> tuple[str, ...]:
        if not lite and (found := re.fullmatch(r"(feat_\d+)\.(2|6|noise)\.weight", name)):
            return found[1], {"2": "noise1", "6": "noise2", "noise": "noise1"}[found[2]]
        return renamed(name, (*FASTGAN, (rf"(feat_\d+)\.{2 if lite else 3}", r"\1/norm1")))

    return net, fill_collections(made, used, path, spectral_layout(used, "init.init.0"))


def projection(
    weights: Weights, *, in_channels: Sequence[int], cout: int = 64, expand: bool = True, proj_type: int = 2
) -> tuple[Projection, dict[str, Any]]:
    """The random mixing of feature maps with so many channels, finest first, and {"params"}."""
    if proj_type not in range(3):
        raise UserError(f"proj_type={proj_type}: must be 0 (none), 1 (across channels) or 2 (across scales)")
    net = Projection(cout, expand, MIXINGS[proj_type])
    maps = [
        jnp.zeros((1, 2 ** (len(in_channels) - 1 - i), 2 ** (len(in_channels) - 1 - i), c)) for i, c in enumerate(in_channels)
    ]
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), maps))
    used = {k.removeprefix("scratch."): v for k, v in weights.items()}
    rules = ((r"(layer\d+_csm)\.out_conv", r"\1"),)
    return net, fill_collections(made, used, lambda name: renamed(name, rules), lambda _, a, shape: to_linen(a, shape))


def token_maps(weights: Weights) -> tuple[TokenMaps, dict[str, Any]]:
    """The random layers that make StyleGAN-XL's maps of DeiT's tokens, by the names of the authors' module "pretrained".

    Those are layer1.3 (a 1x1 convolution) to layer4.4; names of the transformer, model.*, are passed over.
    """
    used = {name: array for name, array in weights.items() if not name.startswith("model.")}
    width = used["layer4.3.bias"].shape[0] if "layer4.3.bias" in used else 768
    net, grid = TokenMaps(), jnp.zeros((1, 2, 2, width))
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), [grid] * 4))

    def path(name: str) -> tuple[str, ...]:
        if found := re.fullmatch(r"layer([1-4])\.3\.(weight|bias)", name):
            return f"layer{int(found[1]) - 1}", found[2]
        if found := re.fullmatch(r"layer([124])\.4\.(weight|bias)", name):
            kind = "down" if found[1] == "4" else "up"
            return (f"layer{int(found[1]) - 1}_{kind}_{'kernel' if found[2] == 'weight' else 'bias'}",)
        return (name,)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        transposed = name in ("layer1.4.weight", "layer2.4.weight")
        return array.transpose(2, 3, 0, 1) if transposed else to_linen(array, shape)

    return net, fill_collections(made, used, path, layout)


HEADS = (
    (r"(\d+)\.main\.(\d+)\.main\.0\.main\.0", r"head_\1/down_\2/conv"),
    (r"(\d+)\.main\.(\d+)\.main\.0\.main\.0\.(depthwise|pointwise)", r"head_\1/down_\2/\3"),
    (r"(\d+)\.main\.(\d+)\.main\.0\.main\.1", r"head_\1/down_\2/norm"),
    (r"(\d+)\.main\.(\d+)\.main\.0\.(depthwise|pointwise)", r"head_\1/down_\2/\3"),
    (r"(\d+)\.main\.(\d+)\.main\.0", r"head_\1/down_\2/conv"),
    (r"(\d+)\.main\.(\d+)\.main\.2", r"head_\1/down_\2/patch_norm"),
    (r"(\d+)\.main\.\d+", r"head_\1/logits"),
    (r"(\d+)\.cls", r"head_\1/logits"),
    (r"(\d+)\.embed_proj(?:\.0)?", r"head_\1/label/embed_proj"),
)
"""Layers of the heads by official name; the second layer of a block depends on whether the block is of patches."""


def discriminator(
    weights: Weights,
    *,
    channels: Sequence[int],
    resolutions: Sequence[int],
    num_discs: int = 4,
    ndf: int | None = None,
    separable: bool = False,
    patch: bool = False,
    cond: int = 0,
    c_dim: int = 1000,
    cmap_dim: int = 64,
    embedding_dim: int = 128,
    fixed: bool = False,
    **other: Any,
) -> tuple[MultiScale, dict[str, Any]]:
    """The heads on the first num_discs of feature maps with these channels, and {"params", "batch_stats", "spectral"}.

    fixed: with StyleGAN-XL's classes, whose embeddings are in "buffers". Raises UserError as `generator` does, and for more
    heads than maps.
    """
    check_options(other, (), {"proj_type": ANY, "cout": ANY, "expand": ANY, "im_res": ANY, "end_sz": (8,), "head": (None,)},
                  "MultiScaleD")  # fmt: skip
    if not 1 <= num_discs <= min(len(channels), len(resolutions)):
        raise UserError(f"num_discs={num_discs}: must be from 1 to the {min(len(channels), len(resolutions))} feature maps")
    classes = c_dim if cond else 0
    net = MultiScale(
        tuple(resolutions[:num_discs]), ndf, separable, patch, classes, cmap_dim, embedding_dim, fixed
    )  # fmt: skip
    maps = [jax.ShapeDtypeStruct((1, 1024, 1024, c), jnp.float32) for c in channels[:num_discs]]
    label = jnp.zeros(1, jnp.int32) if classes else None
    made = jax.eval_shape(lambda maps: net.init(jax.random.key(0), maps, label, train=True), maps)
    second = r"head_\1/down_\2/" + ("patch_conv" if patch else "norm")
    rules = (*HEADS, (r"(\d+)\.main\.(\d+)\.main\.1", second))

    def path(name: str) -> tuple[str, ...]:
        if found := re.fullmatch(r"(\d+)\.embed\.weight", name):
            return f"head_{found[1]}", "label", "embedding"
        return renamed(name, rules)

    used = {k.removeprefix("mini_discs."): v for k, v in without_counts(weights).items()}
    return net, fill_collections(made, used, path, spectral_layout(used))
