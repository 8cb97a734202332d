"""Weights of StyleGAN -> `jgen.models.gan.stylegan1`.

Names may be those of genforce's PyTorch port, whose constructor has the same arguments, or the variables of NVIDIA's
TensorFlow networks, in TensorFlow's layout.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, param_shapes, to_linen
from jgen.convert.options import check_options
from jgen.models.gan.stylegan1 import Discriminator, FusedScale, Generator

MADE_HERE = ("lod", "blur.kernel", "apply_noise.noise")
"""Ends of names that stand for no weight."""
FUSED = (False, True, "auto")


def generator(
    weights: Mapping[str, np.ndarray],
    *,
    resolution: int,
    z_space_dim: int = 512,
    w_space_dim: int = 512,
    label_size: int = 0,
    mapping_layers: int = 8,
    mapping_fmaps: int = 512,
    mapping_lr_mul: float = 0.01,
    image_channels: int = 3,
    final_tanh: bool = False,
    fused_scale: FusedScale = "auto",
    fmaps_base: int = 16384,
    fmaps_max: int = 512,
    **other: Any,
) -> tuple[Generator, dict[str, Any]]:
    """The generator, and {"params", "w_avg" [D], "noise": its constant planes {layer: [1, S, S, 1]}}.

    Raises UserError that names an argument which the port's constructor doesn't have or which makes a network that jgen
    can't, and one that lists missing or left-over weights.
    """
    plain = {"repeat_w": (True,), "const_input": (True,), "use_wscale": (True,), "noise_type": ("spatial",)}
    limits = {"final_tanh": (False, True), "fused_scale": FUSED, **plain}
    check_options({**other, "final_tanh": final_tanh, "fused_scale": fused_scale}, (), limits, "StyleGANGenerator")
    net = Generator(
        z_space_dim, label_size, w_space_dim, resolution, image_channels, mapping_layers, mapping_fmaps, mapping_lr_mul,
        fmaps_base, fmaps_max, fused_scale, final_tanh,
    )  # fmt: skip
    weights = as_port(weights, resolution)
    labels = {"c": jnp.zeros((1, label_size))} if label_size else {}
    shapes = dict(param_shapes(net.init, jnp.zeros((1, z_space_dim)), **labels))
    shapes["truncation"] = {"w_avg": jax.ShapeDtypeStruct((w_space_dim,), jnp.float32)}
    params = _filled(shapes, weights)
    noise = {
        name.split(".")[1]: jnp.asarray(plane, jnp.float32).reshape(1, *plane.shape[-2:], 1)
        for name, plane in weights.items()
        if name.endswith("apply_noise.noise")
    }
    return net, {"w_avg": jnp.asarray(params.pop("truncation")["w_avg"]), "params": params, "noise": noise}


def discriminator(
    weights: Mapping[str, np.ndarray],
    *,
    resolution: int,
    label_size: int = 0,
    image_channels: int = 3,
    fmaps_base: int = 16384,
    fmaps_max: int = 512,
    minibatch_std_group_size: int = 4,
    minibatch_std_channels: int = 1,
    **other: Any,
) -> tuple[Discriminator, dict[str, Any]]:
    """The discriminator and its {"params": ...}, as `generator`. Fused scaling makes no difference to it."""
    check_options(other, (), {"fused_scale": FUSED, "use_wscale": (True,)}, "StyleGANDiscriminator")
    net = Discriminator(
        label_size, resolution, image_channels, fmaps_base, fmaps_max, minibatch_std_group_size, minibatch_std_channels
    )
    weights = _renamed(weights, partial(discriminator_name, resolution=resolution))
    dense = f"layer{2 * _level(resolution) + 1}.weight"
    if dense in weights:  # features are flattened in the order C, H, W there
        weights[dense] = weights[dense].reshape(-1, weights[dense].shape[1] // 16, 4, 4).transpose(0, 2, 3, 1)
        weights[dense] = weights[dense].reshape(len(weights[dense]), -1)
    labels = {"c": jnp.zeros((1, label_size))} if label_size else {}
    shapes = param_shapes(net.init, jnp.zeros((1, resolution, resolution, image_channels)), **labels)
    return net, {"params": _filled(shapes, weights)}


def generator_name(name: str, resolution: int) -> str:
    """The port's name of a TensorFlow variable of the generator; the name itself where it is none.

    >>> generator_name("G_synthesis/8x8/Conv0_up/StyleMod/weight", 16), generator_name("ToRGB_lod2/bias", 16)
    ('synthesis.layer2.style.weight', 'synthesis.output0.bias')
    """
    plain = re.sub(r"^G_(mapping|synthesis)/", "", name)
    inner = {"StyleMod": "style.", "Noise": "apply_noise.", None: ""}

    def layer(m: re.Match) -> str:
        second = m[2] in ("Conv", "Conv1")
        return f"synthesis.layer{2 * _level(int(m[1])) + second}.{inner[m[3]]}{m[4]}"

    rules: dict[str, Callable[[re.Match], str]] = {
        r"Dense(\d+)/(\w+)": lambda m: f"mapping.dense{m[1]}.{m[2]}",
        r"LabelConcat/weight": lambda m: "mapping.label_weight",
        r"dlatent_avg": lambda m: "truncation.w_avg",
        r"lod": lambda m: "synthesis.lod",
        r"noise(\d+)": lambda m: f"synthesis.layer{m[1]}.apply_noise.noise",
        r"ToRGB_lod(\d+)/(\w+)": lambda m: f"synthesis.output{_level(resolution) - int(m[1])}.{m[2]}",
        r"(\d+)x\1/(Const|Conv|Conv0_up|Conv1)/(?:(StyleMod|Noise)/)?(\w+)": layer,
    }
    return _by_rules(rules, plain)


def discriminator_name(name: str, resolution: int) -> str:
    """The port's name of a TensorFlow variable of the discriminator, as `generator_name`.

    >>> discriminator_name("FromRGB_lod1/weight", 16), discriminator_name("4x4/Dense0/bias", 16)
    ('input1.weight', 'layer5.bias')
    """
    within = {"Conv0": 0, "Conv": 0, "Conv1_down": 1, "Dense0": 1, "Dense1": 2}
    rules: dict[str, Callable[[re.Match], str]] = {
        r"FromRGB_lod(\d+)/(\w+)": lambda m: f"input{m[1]}.{m[2]}",
        rf"(\d+)x\1/({'|'.join(within)})/(\w+)": lambda m: (
            f"layer{2 * (_level(resolution) - _level(int(m[1]))) + within[m[2]]}.{m[3]}"
        ),
    }
    return _by_rules(rules, name)


def _level(side: int) -> int:
    """0 for 4, 1 for 8, ..."""
    return side.bit_length() - 3


def _by_rules(rules: Mapping[str, Callable[[re.Match], str]], name: str) -> str:
    found = [new(m) for pattern, new in rules.items() if (m := re.fullmatch(pattern, name))]
    return found[0] if found else name


def as_port(weights: Mapping[str, np.ndarray], resolution: int) -> dict[str, np.ndarray]:
    """Weights of a generator of this side under the port's names and in its layout, from either."""
    return _renamed(weights, partial(generator_name, resolution=resolution))


def _renamed(weights: Mapping[str, np.ndarray], name_of: Callable[[str], str]) -> dict[str, np.ndarray]:
    """Weights under the port's names and in its layout, from either; only TensorFlow's names have slashes."""
    if not any("/" in name for name in weights):
        return dict(weights)
    kept = {name_of(k): a for k, a in weights.items() if not k.endswith("/weight") or k.endswith("LabelConcat/weight")}
    turned = {name_of(k): a.transpose(3, 2, 0, 1) if a.ndim == 4 else a.T for k, a in weights.items() if name_of(k) not in kept}
    return kept | turned


def _filled(shapes: Mapping[str, Any], weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    def path_of(name: str) -> Path:
        return tuple(name.replace("apply_noise.weight", "noise_strength").split("."))

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith(".const"):
            return array[0].transpose(1, 2, 0)
        return array if name.endswith("label_weight") else to_linen(array, shape)

    return fill(shapes, {k: v for k, v in weights.items() if not k.endswith(MADE_HERE)}, path_of, layout)
