"""BigGAN-deep's generators of TensorFlow Hub, by the names of their copy in PyTorch (huggingface/pytorch-pretrained-BigGAN).

The files hold weights before spectral normalisation with the vectors of the power method; here they come divided, since these
networks are for sampling. Their batch norms hold a row of statistics for every 0.02 of truncation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, to_linen
from jgen.convert.options import ANY, check_options, required
from jgen.errors import UserError
from jgen.models.gan import biggan_deep
from jgen.models.gan.biggan import generator_levels

HEEDED = ("output_dim", "z_dim", "channel_width", "num_classes", "layers", "attention_layer_position", "eps", "n_stats")
RGB = 3
STATISTICS = {"running_means": "mean", "running_vars": "var"}


def generator(
    weights: Mapping[str, np.ndarray], config: Mapping[str, Any], *, truncation: float
) -> tuple[biggan_deep.Generator, dict[str, Any]]:
    """The generator, with statistics for one truncation in (0, 1], and {"params", "batch_stats"}.

    config: the file config.json beside the weights. z is normal, drawn again while beyond 2, times truncation. Between two
    rows the authors of the copy weigh the rows the wrong way round; so does this. Raises UserError for options that make
    another network than `jgen.models.gan.biggan_deep`'s, a truncation out of its range, and weights missing or left over.
    """
    check_options(config, HEEDED, {"class_embed_dim": ANY}, "BigGAN-deep's configuration")
    required(config, HEEDED, "BigGAN-deep's configuration")
    if not 0 < truncation <= 1:
        raise UserError(f"truncation={truncation}: must be above 0 and at most 1")
    side, width, places = config["output_dim"], config["channel_width"], config["n_stats"]
    position, layers = config["attention_layer_position"], config["layers"]
    attended = _attended(side, layers, position)
    net = biggan_deep.Generator(
        side, RGB, width, config["z_dim"], config["num_classes"], attended, config["z_dim"], norm=None,
        bn_epsilon=config["eps"], last_bn_epsilon=config["eps"],
    )  # fmt: skip
    z, label = jnp.zeros((1, net.z_dim)), jnp.zeros((1, net.classes))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), z, label))
    ready = _prepared(weights, net, truncation * (places - 1))
    blocks = [i for i in range(len(layers) + 1) if i != position]
    return net, fill(shapes, ready, lambda name: _path(name, blocks, position), _layout)


def _attended(side: int, layers: Sequence[Sequence[Any]], position: int) -> tuple[int, ...]:
    """The side that attention comes at. Raises UserError for blocks of other widths than the paper's."""
    chain = [part for level in generator_levels(side, 1) for part in ([False, level.inputs, level.inputs], [True, *level[:2]])]
    if [list(layer) for layer in layers] != chain or position % 2 or not position:
        raise UserError(f"layers={layers}, attention_layer_position={position}: not BigGAN-deep's at {side} pixels")
    return (4 << position // 2,)


def _prepared(weights: Mapping[str, np.ndarray], net: biggan_deep.Generator, row: float) -> dict[str, np.ndarray]:
    """Weights divided by their norms and in jgen's order of inputs and units, and the statistics of a row."""
    ready, low = {}, int(row)
    for name, array in weights.items():
        if name.endswith(tuple(STATISTICS)):
            share = row - low
            ready[name] = array[low] * share + array[low + 1] * (1 - share) if share else array[low]
        elif name.endswith(".weight_orig"):
            stem = name.removesuffix("_orig")
            ready[stem] = _reordered(stem, array / _singular_value(weights, stem), net)
        elif not name.endswith((".weight_u", ".weight_v")):
            ready[name] = _reordered(name, array, net)
    return ready


def _singular_value(weights: Mapping[str, np.ndarray], stem: str) -> float:
    u, v, matrix = (np.asarray(weights[f"{stem}{kind}"], np.float64) for kind in ("_u", "_v", "_orig"))
    return float(u @ matrix.reshape(len(matrix), -1) @ v)


def _reordered(name: str, array: np.ndarray, net: biggan_deep.Generator) -> np.ndarray:
    if name.endswith((".scale.weight", ".offset.weight", "gen_z.weight")):  # z and then the class there
        array = np.concatenate([array[:, net.z_dim :], array[:, : net.z_dim]], 1)
    if ".gen_z." in name:  # units are height, width, channels there
        shaped = array.reshape(net.bottom, net.bottom, -1, *array.shape[1:])
        array = np.moveaxis(shaped, 2, 0).reshape(array.shape)
    return array[:RGB] if ".conv_to_rgb." in name else array  # further channels are cut off there


PARTS = {
    "gen_z": ("linear",), "bn": ("bn",), "conv_to_rgb": ("rgb",), "snconv1x1_theta": ("theta",), "snconv1x1_phi": ("phi",),
    "snconv1x1_g": ("g",), "snconv1x1_o_conv": ("o",), "scale": ("gain",), "offset": ("bias",),
}  # fmt: skip


def _path(name: str, blocks: Sequence[int], position: int) -> Path:
    """(collection, path) of an official name without its spectral normalisation."""
    if name == "embeddings.weight":
        return "params", "embedding", "weight"
    parts, path = name.removeprefix("generator.").split("."), []
    if parts[0] == "layers" and len(parts) > 2 and parts[1].isdecimal():
        index = int(parts[1])
        path = [f"blocks_{position - 1}_1" if index == position else f"blocks_{blocks.index(index)}_0"]
        parts = parts[2:]
    *modules, leaf = parts
    for module in modules:
        found = re.fullmatch(r"(bn|conv)_(\d)", module)
        path += [f"{found[1]}{int(found[2]) + 1}"] if found else PARTS.get(module, (module,))
    if leaf in STATISTICS:
        return "batch_stats", *path, STATISTICS[leaf]
    return "params", *path, leaf


def _layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if name.endswith("gamma"):
        return array.reshape(())
    return array.T if name == "embeddings.weight" else to_linen(array, shape)
