"""Glow: openai/glow's own checkpoints, rosinality/glow-pytorch's, and blocks of normflows."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill
from jgen.convert.options import ANY, check_options
from jgen.errors import UserError
from jgen.models.glow import Glow, Step
from jgen.nn.flow import NORMFLOWS, ORIGINAL, PORT

Weights = Mapping[str, np.ndarray]
PORT_NAMES = {
    "actnorm.loc": "norm/shift", "actnorm.scale": "norm/scale", "invconv.weight": "mix/weight", "invconv.w_l": "mix/lower",
    "invconv.w_u": "mix/upper", "invconv.w_s": "mix/log_s", "invconv.w_p": "mix/permutation", "invconv.s_sign": "mix/sign",
    "coupling.net.0": "coupling/net/conv_0", "coupling.net.2": "coupling/net/conv_1",
    "coupling.net.4.conv": "coupling/net/last", "coupling.net.4": "coupling/net/last",
}  # fmt: skip
ORIGINAL_NAMES = {
    "actnorm_center/b": "norm/shift", "actnorm_scale/logs": "norm/scale", "invconv/W": "mix/weight",
    "f1/l_1/actnorm_center/b": "coupling/net/norm_0/shift", "f1/l_1/actnorm_scale/logs": "coupling/net/norm_0/scale",
    "f1/l_2/actnorm_center/b": "coupling/net/norm_1/shift", "f1/l_2/actnorm_scale/logs": "coupling/net/norm_1/scale",
    "f1/l_1/W": "coupling/net/conv_0/kernel", "f1/l_2/W": "coupling/net/conv_1/kernel",
    "f1/l_last/W": "coupling/net/last/kernel", "f1/l_last/b": "coupling/net/last/bias",
    "f1/l_last/logs": "coupling/net/last/scale",
}  # fmt: skip
FLOWS_NAMES = {
    "L": "mix/lower", "U": "mix/upper", "log_S": "mix/log_s", "P": "mix/permutation", "sign_S": "mix/sign", "W": "mix/weight",
    "s": "norm/scale", "t": "norm/shift",
}  # fmt: skip
FIXED = ("permutation", "sign")


def glow_pytorch(
    weights: Weights, *, in_channel: int, n_flow: int, n_block: int, affine: bool = True, conv_lu: bool = True,
    filter_size: int = 512, image_size: int = 32,
) -> tuple[Glow, dict[str, Any]]:  # fmt: skip
    """glow-pytorch's Glow, of images from -0.5 to 0.5; its last level has LU factors whatever conv_lu says.

    filter_size is its AffineCoupling's. Raises UserError for weights that do not fit.
    """
    lu = (*[conv_lu] * (n_block - 1), True)
    net = Glow(n_block, n_flow, filter_size, affine, lu, PORT, channels=in_channel)
    buffers = r"\.(initialized|u_mask|l_mask|l_eye)$"
    used = {name: array for name, array in weights.items() if not re.search(buffers, name)}
    return net, _filled(net, used, (image_size, image_size, in_channel), port_path, _torch_layout)


def port_path(name: str) -> Path:
    """The path of a weight of glow-pytorch."""
    if found := re.fullmatch(r"blocks\.(\d+)\.flows\.(\d+)\.(.*)", name):
        return (f"blocks_{found[1]}_{found[2]}", *layer_path(found[3]))
    if found := re.fullmatch(r"blocks\.(\d+)\.prior\.(?:conv\.)?(\w+)", name):
        return f"priors_{found[1]}", "conv", _last(found[2])
    return (name,)


def layer_path(name: str) -> Path:
    """The path within a step of a weight of glow-pytorch's Flow."""
    layer, _, kind = name.rpartition(".")
    there = PORT_NAMES.get(name) or (f"{PORT_NAMES[layer]}/{_last(kind)}" if layer in PORT_NAMES else name)
    return tuple(there.split("/"))


def _last(kind: str) -> str:
    return "kernel" if kind == "weight" else kind


def _torch_layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if array.ndim == 4 and array.shape[0] == 1 and array.shape[2:] == (1, 1):
        return array.reshape(-1) if len(shape) == 1 else array.transpose(2, 3, 1, 0)
    if array.ndim == 4 and len(shape) == 2:
        return array[:, :, 0, 0]  # the matrix of a 1x1 convolution, [out, in] here too
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def original(
    weights: Weights, *, n_levels: int = 3, depth: int = 32, width: int = 512, n_y: int = 10, image_size: int = 32,
    flow_permutation: int = 2, flow_coupling: int = 0, learntop: bool = False, ycond: bool = False,
    average: bool | None = None, **other: Any,
) -> tuple[Glow, dict[str, Any]]:  # fmt: skip
    """openai/glow's model under its variables' names (model/0/0/actnorm_center/b, …), of images from -0.5 to 0.5.

    The arguments are its options, with its defaults. average: whether to take the Polyak averages that its checkpoints hold
    beside the weights (model/…/ExponentialMovingAverage); needed where there are both. Its classifier, of the predictive loss
    alone, and its optimizer's variables are passed over. Raises UserError for other permutations than 1x1 convolutions, for
    averages that are not there or not chosen, and for weights that do not fit.
    """
    check_options({"flow_permutation": flow_permutation}, (), {"flow_permutation": (2,)}, "Glow")
    check_options({"flow_coupling": flow_coupling}, (), {"flow_coupling": (0, 1)}, "Glow")
    check_options(other, (), dict.fromkeys(ORIGINAL_OPTIONS, ANY), "Glow")
    net = Glow(n_levels, depth, width, flow_coupling == 1, False, ORIGINAL, n_y if ycond else 0, learntop)
    named = {k.removesuffix(":0"): v for k, v in weights.items()}
    used = _raw_or_average({k: v for k, v in named.items() if re.match(r"model/(?!classifier/)", k)}, average)
    return net, _filled(net, used, (image_size, image_size, 3), lambda n: original_path(n, n_levels), _tf_layout)


AVERAGE = "/ExponentialMovingAverage"


def _raw_or_average(weights: Weights, average: bool | None) -> dict[str, np.ndarray]:
    raw = {name: array for name, array in weights.items() if AVERAGE not in name}  # and without what the averages count by
    averages = {name.removesuffix(AVERAGE): array for name, array in weights.items() if name.endswith(AVERAGE)}
    if average is None and raw and averages:
        raise UserError("average: the file holds weights and their averages; say which, average=False or average=True")
    if average and not averages:
        raise UserError("average=True: the file holds no averages, model/.../ExponentialMovingAverage")
    return averages if average or not raw else raw


ORIGINAL_OPTIONS = (
    "problem", "category", "data_dir", "fmap", "local_batch_train", "n_train", "n_test", "n_batch_train", "n_batch_test",
    "n_batch_init", "optimizer", "lr", "beta1", "polyak_epochs", "weight_decay", "epochs", "epochs_warmup",
    "epochs_full_valid", "gradient_checkpointing", "anchor_size", "seed", "weight_y", "n_sample", "epochs_full_sample",
    "n_bits_x", "logdir", "restore_path", "inference", "verbose", "dal", "rnd_crop", "direct_iterator", "local_batch_test",
    "local_batch_init", "full_test_its", "train_its", "test_its", "top_shape",
)  # fmt: skip
"""Options of training and data, which change no number of the network."""


def original_path(name: str, levels: int) -> Path:
    """The path of a variable of openai/glow."""
    if found := re.fullmatch(r"model/(\d+)/(\d+)/(.*)", name):
        return f"blocks_{found[1]}_{found[2]}", *ORIGINAL_NAMES.get(found[3], found[3]).split("/")
    kinds = {"W": "kernel", "b": "bias", "logs": "scale"}
    if found := re.fullmatch(r"model/pool(\d+)/conv/(W|b|logs)", name):
        return f"priors_{found[1]}", "conv", kinds[found[2]]
    if found := re.fullmatch(r"model/prior/(p|y_emb)/(W|b|logs)", name):
        own = ("conv", kinds[found[2]]) if found[1] == "p" else (f"class_{'weight' if found[2] == 'W' else kinds[found[2]]}",)
        return f"priors_{levels - 1}", *own
    return (name,)


def _tf_layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("invconv/W"):
        return array.T
    return array.reshape(-1) if len(shape) == 1 else array


def normflows_block(
    weights: Weights, *, channels: int, hidden_channels: int, scale: bool = True, scale_map: str = "sigmoid",
    split_mode: str = "channel", leaky: float = 0.0, use_lu: bool = True, net_actnorm: bool = False, init_zeros: bool = True,
    height: int = 4, width: int = 4,
) -> tuple[Step, dict[str, Any]]:  # fmt: skip
    """normflows' GlowBlock as a `Step`: its inverse is the step, its forward the step's inverse.

    init_zeros changes initial weights alone. Raises UserError for an option that it has not, and for weights that do not fit.
    """
    modes, maps = ("channel", "channel_inv", "checkerboard", "checkerboard_inv"), ("sigmoid", "exp", "sigmoid_inv")
    given = {"split_mode": split_mode, "scale_map": scale_map, "init_zeros": init_zeros}
    check_options(given, (), {"split_mode": modes, "scale_map": maps, "init_zeros": ANY}, "GlowBlock")
    convention = NORMFLOWS._replace(hidden_norm="inward") if net_actnorm else NORMFLOWS
    net = Step(hidden_channels, scale, use_lu, convention, split_mode, scale_map, leaky)  # pyright: ignore
    last = 2 if channels > 1 else 1

    def path(name: str) -> Path:
        if found := re.fullmatch(r"flows\.0\.flows\.1\.param_map\.net\.(\d+)\.(\w+)", name):
            return "coupling", "net", *_net_module(int(found[1]), found[2], net_actnorm)
        if found := re.fullmatch(rf"flows\.[1{last}]\.(\w+)", name):
            return tuple(FLOWS_NAMES.get(found[1], found[1]).split("/"))
        return (name,)

    used = {n: a for n, a in weights.items() if not n.endswith((".eye", ".data_dep_init_done"))}
    return net, _filled(net, used, (height, width, channels), path, _torch_layout)


def _net_module(place: int, kind: str, norms: bool) -> Path:
    """Places in the list of layers: convolution, (actnorm,) leaky ReLU, and again, then the last convolution."""
    names = ("conv_0", "norm_0", "", "conv_1", "norm_1", "", "last") if norms else ("conv_0", "", "conv_1", "", "last")
    if place >= len(names):
        raise UserError(f"weight of layer {place} of a coupling's network: there are only {len(names)}")
    return names[place], {"s": "scale", "t": "shift"}.get(kind, _last(kind))


def _filled(net: Any, weights: Weights, shape: tuple[int, int, int], path_of: Any, layout: Any) -> dict[str, Any]:
    """The variables of a flow; those of the collection "fixed" too."""
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((2, *shape))))
    fixed = {n: a for n, a in weights.items() if path_of(n)[-1] in FIXED}
    rest = {n: a for n, a in weights.items() if n not in fixed}
    found = {"params": fill(variables["params"], rest, path_of, layout)}
    if "fixed" in variables or fixed:
        found["fixed"] = fill(variables.get("fixed", {}), fixed, path_of, layout)
    return found
