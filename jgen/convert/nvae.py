"""NVlabs/NVAE's checkpoints, of NVAE itself and of the NVAEs that VAEBM and NCP-VAE build on."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill_collections, to_linen
from jgen.convert.options import ANY, check_options, required
from jgen.errors import UserError
from jgen.models.nvae import NVAE, check_sides

Weights = Mapping[str, np.ndarray]
NEEDED = (
    "dataset", "num_latent_scales", "num_groups_per_scale", "num_latent_per_group", "num_channels_enc", "num_channels_dec",
    "num_preprocess_blocks", "num_preprocess_cells", "num_cell_per_cond_enc", "num_postprocess_blocks",
    "num_postprocess_cells", "num_cell_per_cond_dec", "use_se", "res_dist",
)  # fmt: skip
HEEDED = (*NEEDED, "num_nf", "num_mixture_dec", "ada_groups", "min_groups_per_scale")
OF_TRAINING = (
    "root", "save", "data", "batch_size", "learning_rate", "learning_rate_min", "weight_decay", "weight_decay_norm",
    "weight_decay_norm_init", "weight_decay_norm_anneal", "epochs", "warmup_epochs", "fast_adamax", "kl_anneal_portion",
    "kl_const_portion", "kl_const_coeff", "num_x_bits", "cont_training", "num_proc_node", "node_rank", "local_rank",
    "global_rank", "num_process_per_node", "master_address", "seed", "distributed", "num_total_iter",
)  # fmt: skip
"""Options that change no number of the network; num_x_bits is of the likelihood."""
ALLOWED = {**dict.fromkeys(OF_TRAINING, ANY), "use_se": (True,), "res_dist": (True,), "arch_instance": ("res_mbconv",)}
NOT_STORED = (".weight_normalized", ".num_batches_tracked")
"""Ends of names that hold copies of weights and counts of batches."""
LEAVES = {"log_weight_norm": "log_norm", "running_mean": "mean", "running_var": "var"}
CELL = (
    (r"se\.se\.0", "se/down"), (r"se\.se\.2", "se/up"), (r"skip\.conv_(\d)", r"skip/conv_\1"), (r"skip\.1", "skip"),
    (r"_ops\.(\d)\.bn_act", r"norm_\1"), (r"_ops\.(\d)\.conv_0", r"conv_\1"),
)  # fmt: skip
"""Layers of a cell by official name; those of an inverted residual are numbered from 0, after an upsampling from 1."""
INVERTED = {
    "0.bn": "norm_0", "1.conv.0": "expand_conv", "1.conv.1": "norm_1", "2.conv.0": "depthwise", "2.conv.1": "norm_2",
    "3": "project", "4.bn": "norm_3",
}  # fmt: skip
FLOW = {"conv.convz.0": ("expand_conv", "strict"), "conv.convz.2": ("depthwise", "causal"), "mu.conv_0": ("shift", "causal")}
"""A flow step's layers, and how each is masked."""


def nvae(weights: Weights, **config: Any) -> tuple[NVAE, dict[str, Any]]:
    """(network, {"params", "batch_stats"}) for the authors' command-line options, which their checkpoints hold as "args".

    Images are in [-1, 1]; those of MNIST and Omniglot are padded to 32x32 with zeros before that. The outputs are those of
    `jgen.objectives.nvae_decoders` with num_mixture_dec logistics, of its normal where that is 1, and logits of binary pixels
    for MNIST and Omniglot. Options that older checkpoints lack have the defaults that the authors give them. Raises UserError
    for an option that jgen's network lacks, and for weights that do not fit.
    """
    check_options(config, HEEDED, ALLOWED, "NVAE")
    required(config, NEEDED, "NVAE")
    side, channels = _image(config["dataset"])
    for name in ("channels", "blocks", "cells"):
        _check_symmetric(config, name)
    net = NVAE(
        outputs=1 if channels == 1 else _outputs(config.get("num_mixture_dec", 10)),
        side=side,
        channels=config["num_channels_enc"],
        latents=config["num_latent_per_group"],
        groups=_groups(config),
        image_blocks=config["num_preprocess_blocks"],
        image_cells=config["num_preprocess_cells"],
        encoder_cells=config["num_cell_per_cond_enc"],
        decoder_cells=config["num_cell_per_cond_dec"],
        flows=config.get("num_nf", 0),
    )
    check_sides(net)
    image = jnp.zeros((1, side, side, channels))
    made = jax.eval_shape(lambda: net.init(jax.random.key(0), image, lambda k, group: group.prior[0]))
    used = {name: array for name, array in weights.items() if not name.endswith(NOT_STORED)}
    prefixes, doubling = _prefixes(net), _doubling(net)
    return net, fill_collections(made, used, lambda name: _path(name, prefixes, doubling), _layout)


def _image(dataset: str) -> tuple[int, int]:
    """(side, channels) of the images of a data set of the authors."""
    if dataset in ("mnist", "omniglot"):
        return 32, 1
    known = {"cifar10": 32, "ffhq": 256}
    if dataset in known:
        return known[dataset], 3
    if found := re.fullmatch(r"(?:celeba|imagenet|lsun_\w+)_(\d+)", dataset):
        return int(found[1]), 3
    raise UserError(f"dataset={dataset}: must be mnist, omniglot, cifar10, ffhq, or celeba, imagenet or lsun_NAME with _SIDE")


def _outputs(mixtures: int) -> int:
    return 6 if mixtures == 1 else 10 * mixtures


def _check_symmetric(config: Mapping[str, Any], name: str) -> None:
    pairs = {
        "channels": ("num_channels_enc", "num_channels_dec"),
        "blocks": ("num_preprocess_blocks", "num_postprocess_blocks"),
        "cells": ("num_preprocess_cells", "num_postprocess_cells"),
    }
    first, second = pairs[name]
    if config[first] != config[second]:
        raise UserError(f"{second}={config[second]}: must be {first}={config[first]} here")


def _groups(config: Mapping[str, Any]) -> tuple[int, ...]:
    """Groups at each scale, from the largest: all the same, or halved at each one, but not below the minimum."""
    groups = [config["num_groups_per_scale"]]
    for _ in range(config["num_latent_scales"] - 1):
        halved = max(groups[-1] // 2, config.get("min_groups_per_scale", 1))
        groups.append(halved if config.get("ada_groups") else groups[-1])
    if groups == [1]:
        raise UserError("num_latent_scales=1, num_groups_per_scale=1: the authors' plain VAE, which jgen's NVAE is not")
    return tuple(groups)


def _prefixes(net: NVAE) -> dict[str, str]:
    """{official name of a cell or layer: ours}, of those that their tower numbers."""
    found = {"stem": "stem", "enc0.1": "top", "image_conditional.1": "head"}
    total = sum(net.groups)
    for i in range(net.image_blocks * net.image_cells):
        found |= {f"pre_process.{i}": f"pre_{i}", f"post_process.{i}": f"post_{i}"}
    for tower, names in (("enc_tower", _encoder(net)), ("dec_tower", _decoder(net))):
        found |= {f"{tower}.{i}": name for i, name in enumerate(names)}
    for k in range(total):
        found |= {f"enc_sampler.{k}": f"posteriors_{k}", f"dec_sampler.{k}.1": f"priors_{k}"}
        for n in range(net.flows):
            for step in range(2):
                found[f"nf_cells.{k * net.flows + n}.cell{step + 1}"] = f"flow_{k}_{n}/step_{step}"
    return found


def _encoder(net: NVAE) -> Sequence[str]:
    """Our names of the encoder tower's cells: those of each group, the layer that joins it with the decoder, then a halving."""
    names, group, total = [], 0, sum(net.groups)
    for s, count in enumerate(net.groups):
        names += [f"down_{s - 1}"] if s else []
        for _ in range(count):
            names += [f"encoder_{group}_{c}" for c in range(net.encoder_cells)]
            names += [f"combiners_{total - 2 - group}"] if group < total - 1 else []
            group += 1
    return names


def _decoder(net: NVAE) -> Sequence[str]:
    """Our names of the decoder tower's cells: those before each group but the first, the layer that takes its latents in."""
    names, group = [], 0
    for s, count in enumerate(reversed(net.groups)):
        names += [f"up_{s - 1}"] if s else []
        for _ in range(count):
            names += [f"decoder_{group - 1}_{c}" for c in range(net.decoder_cells)] if group else []
            names.append(f"joins_{group}")
            group += 1
    return names


def _doubling(net: NVAE) -> set[str]:
    """Our names of the decoder's cells that double the side."""
    blocks = {f"post_{block * net.image_cells}" for block in range(net.image_blocks)}
    return blocks | {f"up_{s}" for s in range(len(net.groups) - 1)}


def _path(name: str, prefixes: Mapping[str, str], doubling: set[str]) -> tuple[str, ...]:
    if name == "prior_ftr0":
        return ("start",)
    layer, _, leaf = name.rpartition(".")
    prefix = next((p for p in _beginnings(layer) if p in prefixes), None)
    if prefix is None:
        return (name,)  # left over, and listed so
    rest, ours = layer[len(prefix) + 1 :], prefixes[prefix].split("/")
    if prefix.startswith("nf_cells") and rest in FLOW:
        inner, mask = FLOW[rest]
        mask += "_mirrored" if prefix.endswith("cell2") else ""
        return (*ours, inner, f"{mask}_kernel" if leaf == "weight" else LEAVES.get(leaf, leaf))
    inner = _within_cell(rest, ours[0] in doubling)
    return (*ours, *inner.split("/"), LEAVES.get(leaf, leaf)) if inner else (*ours, LEAVES.get(leaf, leaf))


def _beginnings(layer: str) -> list[str]:
    """All beginnings of a dotted name, the longest first."""
    words = layer.split(".")
    return [".".join(words[:n]) for n in range(len(words), 0, -1)]


def _within_cell(rest: str, up: bool) -> str:
    """Our name of a layer inside of a cell; "" for the one convolution of a combiner. up: the cell doubles the side."""
    if found := re.fullmatch(r"_ops\.0\.conv\.(\d)(.*)", rest):
        return INVERTED.get(f"{int(found[1]) - up}{found[2]}", rest)
    for pattern, ours in CELL:
        if re.fullmatch(pattern, rest):
            return re.sub(pattern, ours, rest)
    return "" if rest == "conv" else rest


def _layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if name == "prior_ftr0":
        return array.transpose(1, 2, 0)
    return array.reshape(-1) if name.endswith("log_weight_norm") else to_linen(array, shape)
