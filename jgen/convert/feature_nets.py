"""Weights of feature networks: torchvision's VGG16, AlexNet and SqueezeNet, LPIPS, pytorch-fid's Inception-v3,
EfficientNet-Lite0, DeiT."""

import re
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.convert.options import check_options
from jgen.errors import UserError
from jgen.models.deit import HEAD, DeiT
from jgen.models.efficientnet_lite import EfficientNetLite
from jgen.models.inception import InceptionV3
from jgen.models.perceptual import FIRE_CHANNELS, LPIPS, VGG16, AlexNet, SqueezeNet

Weights = Mapping[str, np.ndarray]


def inception_v3(weights: Weights) -> tuple[InceptionV3, dict[str, Any]]:
    """The FID network from pytorch-fid's pt_inception-2015-12-05-6726825d.pth."""
    used = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked") and not k.startswith("AuxLogits")}
    net = InceptionV3(classes=len(used.get("fc.bias", np.zeros(1008))))
    shapes = param_shapes(net.init, jnp.zeros((1, 299, 299, 3)))

    def path(name: str) -> tuple[str, ...]:
        # Normalisation is not a module of its own here, so its "weight" is a name like any other.
        return tuple(name.replace(".bn.", ".bn_").split("."))

    return net, {"params": fill(shapes, used, path, lambda _, array, shape: to_linen(array, shape))}


def efficientnet_lite0(weights: Weights, head: bool = True) -> tuple[EfficientNetLite, dict[str, Any]]:
    """EfficientNet-Lite0 by efficientnet-lite-pytorch's names; its batch norms (epsilon 1e-3) go into the convolutions.

    head: without, the network ends at its last feature map.
    """
    net = EfficientNetLite(classes=len(weights.get("_fc.bias", np.zeros(1000))), head=head)
    shapes = param_shapes(net.init, jnp.zeros((1, 32, 32, 3)))
    norms = {
        "_conv_stem": "_bn0",
        "_conv_head": "_bn1",
        "_expand_conv": "_bn0",
        "_depthwise_conv": "_bn1",
        "_project_conv": "_bn2",
    }
    ours = {"_conv_stem": "stem", "_conv_head": "head", "_expand_conv": "expand", "_depthwise_conv": "depthwise",
            "_project_conv": "project"}  # fmt: skip
    left, folded = {k: np.asarray(v) for k, v in weights.items() if not k.endswith("num_batches_tracked")}, {}
    for name in [k for k in left if k.endswith(".weight") and "conv" in k]:
        stem, _, conv = name.removesuffix(".weight").rpartition(".")
        at = f"{stem}." if stem else ""
        norm = {part: left.pop(f"{at}{norms[conv]}.{part}") for part in ("weight", "bias", "running_mean", "running_var")}
        factor = norm["weight"] / np.sqrt(norm["running_var"] + 1e-3)
        new = f"{stem.replace('_blocks.', 'block_')}.{ours[conv]}" if stem else ours[conv]
        folded[f"{new}.weight"] = left.pop(name) * factor[:, None, None, None]
        folded[f"{new}.bias"] = norm["bias"] - norm["running_mean"] * factor
    folded |= {k.replace("_fc.", "classifier."): v for k, v in left.items()}
    folded = folded if head else {k: v for k, v in folded.items() if not k.startswith(("head.", "classifier."))}
    params = fill(shapes, folded, lambda name: tuple(name.split(".")), lambda _, array, shape: to_linen(array, shape))
    return net, {"params": params}


DEIT_LAYERS = {"attn.qkv": "attn_in", "attn.proj": "attn_out", "norm1": "ln_1", "norm2": "ln_2", "mlp.fc1": "c_fc",
               "mlp.fc2": "c_proj"}  # fmt: skip
"""Layers of a block by timm's names."""


def deit(weights: Weights, head: bool = True) -> tuple[DeiT, dict[str, Any]]:
    """A distilled DeiT of any size by timm's names, which the official files have as well; sizes follow the weights.

    head: without, the network ends at its last tokens. Raises UserError for a DeiT that was not distilled.
    """
    missing = [name for name in ("cls_token", "dist_token", "pos_embed", "patch_embed.proj.weight") if name not in weights]
    if missing:
        raise UserError(f"weights do not match the network: missing {', '.join(missing)} of a distilled DeiT")
    width, layers = weights["cls_token"].shape[-1], len([n for n in weights if re.fullmatch(r"blocks\.\d+\.norm1\.bias", n)])
    if width % HEAD or not layers or layers % 4:
        raise UserError(
            f"weights do not match the network: {width} channels, {layers} blocks; DeiT's are multiples of {HEAD} and of 4"
        )
    grid = round((weights["pos_embed"].shape[1] - 2) ** 0.5)
    net = DeiT(width, layers, grid, len(weights.get("head.bias", np.zeros(1000))), head)
    shapes = param_shapes(net.init, jnp.zeros((1, 16, 16, 3)))
    used = weights if head else {k: v for k, v in weights.items() if not k.startswith(("head", "norm."))}

    def path(name: str) -> tuple[str, ...]:
        if found := re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            return f"blocks_{found[1]}", DEIT_LAYERS.get(found[2], found[2]), found[3]
        return tuple(name.replace("patch_embed.proj", "patch_embed").split("."))

    def layout(_: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if array.shape == shape and array.ndim == 3 else to_linen(array, shape)

    return net, {"params": fill(shapes, used, path, layout)}


def vgg16(weights: Weights, dense: bool = True) -> tuple[VGG16, dict[str, Any]]:
    """VGG16 from torchvision's vgg16-397923af.pth; without `dense`, its convolutions only."""
    widths = _widths(weights, "features")
    stages, index = [], 0
    while index in widths:
        stage = []
        while index in widths:
            stage.append(widths[index])
            index += 2
        stages.append(tuple(stage))
        index += 1
    hidden = len(weights["classifier.0.bias"]) if dense and "classifier.0.bias" in weights else 0
    return _trunk(VGG16(tuple(stages), hidden), weights, ("classifier.0", "classifier.3"), 224)


def alexnet(weights: Weights, dense: bool = True) -> tuple[AlexNet, dict[str, Any]]:
    """AlexNet from torchvision's alexnet-owt-7be5be79.pth; without `dense`, its convolutions only."""
    widths = _widths(weights, "features")
    hidden = len(weights["classifier.1.bias"]) if dense and "classifier.1.bias" in weights else 0
    return _trunk(AlexNet(tuple(widths[i] for i in sorted(widths)), hidden), weights, ("classifier.1", "classifier.4"), 224)


def squeezenet(weights: Weights) -> tuple[SqueezeNet, dict[str, Any]]:
    """SqueezeNet 1.1's convolutions from torchvision's squeezenet1_1-b8a52dc0.pth."""
    layers = ("squeeze", "expand1x1", "expand3x3")
    names = [[f"features.{i}.{layer}.bias" for layer in layers] for i in FIRE_CHANNELS]
    needed = ["features.0.bias", *(name for fire in names for name in fire)]
    missing = [name for name in needed if name not in weights]
    if missing:
        raise UserError(f"weights do not match the network: missing {', '.join(missing)} of SqueezeNet 1.1")
    fires = tuple((len(weights[a]), len(weights[b]), len(weights[c])) for a, b, c in names)
    return _trunk(SqueezeNet(len(weights["features.0.bias"]), fires), weights, ("", ""), 64)


def lpips(weights: Weights, version: str = "0.1") -> tuple[LPIPS, dict[str, Any]]:
    """LPIPS, its trunk (torchvision's names or LPIPS's own) and linear heads (lin0.model.1.weight …) in one dict.

    The kind of trunk is read from its layers: a first convolution of 11x11 is AlexNet's, "squeeze" SqueezeNet's, others are
    VGG16's. version: 0.0 or 0.1. Raises UserError for another one, and where heads are missing.
    """
    check_options({"version": str(version)}, (), {"version": ("0.0", "0.1")}, "LPIPS")
    trunk = {re.sub(r"^(net\.slice\d+|features)\.", "features.", k): v for k, v in weights.items() if "lin" not in k}
    first = trunk.get("features.0.weight")
    if first is None:
        raise UserError("weights do not match the network: missing features.0.weight, the first convolution of the trunk")
    if any(".squeeze." in name for name in trunk):
        (net, variables), taps = squeezenet(trunk), 7
    else:
        (net, variables), taps = (alexnet if first.shape[-1] == 11 else vgg16)(trunk, dense=False), 5
    heads = {f"lin{i}": weights.get(f"lin{i}.model.1.weight") for i in range(taps)}
    missing = [f"{name}.model.1.weight" for name, head in heads.items() if head is None]
    if missing:
        raise UserError(f"weights do not match the network: missing {', '.join(missing)}")
    flat = {name: np.asarray(head).reshape(-1) for name, head in heads.items()}
    net = LPIPS(net, tuple(len(h) for h in flat.values()), str(version) != "0.0")
    return net, {"params": {**flat, "trunk": variables["params"]}}


def _widths(weights: Weights, prefix: str) -> dict[int, int]:
    """Layer index -> output channels of its convolution."""
    found = {re.fullmatch(rf"{prefix}\.(\d+)\.weight", k): v for k, v in weights.items()}
    return {int(match[1]): len(v) for match, v in found.items() if match}


def _trunk(net: Any, weights: Weights, dense: tuple[str, str], size: int) -> tuple[Any, dict[str, Any]]:
    kinds = ("features.", *(f"{d}." for d in dense)) if net.hidden else ("features.",)
    used = {k: v for k, v in weights.items() if k.startswith(kinds)}
    image = jnp.zeros((1, size, size, 3))
    shapes = param_shapes(net.init, image, method="features") if net.hidden else param_shapes(net.init, image)
    return net, {"params": fill(shapes, used, linen_path, lambda _, array, shape: to_linen(array, shape))}
