"""The generators of BigGAN that TensorFlow Hub gave, by their own names, as HDF5 files hold them (ajbrock's TFHub converter).

The files hold weights before spectral normalisation with the vectors of the power method, and moving averages of the weights;
here they come divided, since these networks are for sampling. Their batch norms have one set of statistics.
"""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill
from jgen.errors import UserError
from jgen.models.gan import biggan

AVERAGED = "/ema_b999900"
EPSILON = 1e-4
"""Epsilon of the batch norms, and of the power method's vectors."""
ROOT = "Generator/"
PARTS = {
    "GBlock": "blocks", "HyperBN": "bn1", "HyperBN_1": "bn2", "CrossReplicaBN": "bn1", "CrossReplicaBN_1": "bn2",
    "conv0": "conv1", "conv1": "conv2", "conv_sc": "conv_sc", "o_conv": "o", "G_linear": "linear", "conv_2d": "rgb",
    "ScaledCrossReplicaBN": "bn", "ScaledCrossReplicaBNbn": "bn",
}  # fmt: skip
"""{a module there: its name here}; others have one name."""
LEAVES = {"w": "kernel", "b": "bias", "gamma": "scale", "beta": "bias", "accumulated_mean": "mean", "accumulated_var": "var"}
UNUSED = ("/u0", "/u1", "/u2", "/accumulation_counter", "/update_accumulators", "/moving_mean", "/moving_variance")


def generator(weights: Mapping[str, np.ndarray], *, average: bool = True) -> tuple[biggan.Generator, dict]:
    """The generator of a file "biggan-128.h5" (256, 512), as large as its weights say, and {"params", "batch_stats"}.

    average: the moving averages of the weights; else the weights themselves. z is normal, drawn again while beyond 2, times a
    truncation. Raises UserError for weights that are missing, left over, or of another network.
    """
    named = {re.sub(r"^module(_\d+)?/|:0$", "", name): array for name, array in weights.items()}
    chosen = _chosen(named, average)
    net = _network(chosen)
    z, label = jnp.zeros((1, net.z_dim)), jnp.zeros((1, net.classes))
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), z, label))
    ready = {name: _arranged(name, array, named, net) for name, array in chosen.items()}
    attended = [i for i, level in enumerate(biggan.generator_levels(net.side, net.width)) if level.side in net.attention]
    return net, fill(shapes, ready, lambda name: _path(name, attended), lambda name, array, shape: array.reshape(shape))


def _chosen(named: Mapping[str, np.ndarray], average: bool) -> dict[str, np.ndarray]:
    """The weights to take, without the average's suffix; statistics have no average."""
    found = {}
    for name, array in named.items():
        plain = name.removesuffix(AVERAGED)
        has_average = plain + AVERAGED in named
        if plain.startswith((ROOT, "linear/")) and not plain.endswith(UNUSED) and has_average * average == (name != plain):
            found[plain] = array
    return found


def _network(weights: Mapping[str, np.ndarray]) -> biggan.Generator:
    try:
        blocks = len({name.split("/")[1] for name in weights if name.startswith(f"{ROOT}GBlock")})
        classes, shared = weights["linear/w"].shape
        chunk = len(weights[f"{ROOT}G_Z/G_linear/w"])
        channels, attended = weights[f"{ROOT}conv_2d/w"].shape[2], weights[f"{ROOT}attention/theta/w"].shape[2]
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(f"weights: not those of TensorFlow Hub's BigGAN, which have {error}") from error
    side = next((s for s, widths in biggan.WIDTHS.items() if len(widths) == blocks + 1 and s >= 64), 0)
    width = channels // biggan.WIDTHS[side][-1] if side else 0
    levels = biggan.generator_levels(side, width) if side else []
    places = [level.side for level in levels if level.outputs == attended]
    if len(places) != 1:
        raise UserError(f"weights: {blocks} blocks with attention at {attended} channels; not BigGAN's at 64 to 512 pixels")
    return biggan.Generator(
        side, weights[f"{ROOT}conv_2d/w"].shape[3], width, chunk * (blocks + 1), classes, tuple(places), shared_dim=shared,
        norm=None, bn_epsilon=EPSILON, last_bn_epsilon=EPSILON,
    )  # fmt: skip


def _arranged(name: str, array: np.ndarray, named: Mapping[str, np.ndarray], net: biggan.Generator) -> np.ndarray:
    """An array divided by its greatest singular value, and in jgen's order of inputs and units."""
    stem, _, leaf = name.rpartition("/")
    if leaf == "w" and f"{stem}/u0" in named:
        array = array / _singular_value(array, named[f"{stem}/u0"])
    if "/HyperBN" in name:  # z and then the class there
        array = np.concatenate([array[net.chunk :], array[: net.chunk]])
    if "/G_linear/" in name:  # units are height, width, channels there
        shaped = array.reshape(-1, net.bottom, net.bottom, array.shape[-1] // net.bottom**2)
        array = np.moveaxis(shaped, 3, 1).reshape(array.shape)
    return array


def _singular_value(weight: np.ndarray, u: np.ndarray) -> float:
    """By one step of the power method, as the network takes in sampling."""
    matrix = np.asarray(weight, np.float64).reshape(-1, weight.shape[-1])
    v = matrix @ np.asarray(u, np.float64).reshape(-1)
    v /= np.linalg.norm(v) + EPSILON
    product = v @ matrix
    return float(product @ product / (np.linalg.norm(product) + EPSILON))


def _path(name: str, attended: list[int]) -> Path:
    """(collection, path) of an official name."""
    if name == "linear/w":
        return "params", "embedding", "embedding"
    *modules, leaf = name.removeprefix(ROOT).removeprefix("G_Z/").split("/")
    collection = "batch_stats" if leaf.startswith("accumulated") else "params"
    path: list[str] = []
    for module in modules:
        if module == "attention":
            path += [f"blocks_{attended[0]}_1"]
        elif found := re.fullmatch(r"GBlock(?:_(\d+))?", module):
            path += [f"blocks_{found[1] or 0}_0"]
        elif module in ("gamma", "beta"):  # of a conditional norm
            path += [{"gamma": "gain", "beta": "bias"}[module]]
        else:
            path += [PARTS.get(module, module)]
    leaf = "gamma" if modules == ["attention"] else LEAVES.get(leaf, leaf)
    return collection, *path, leaf
