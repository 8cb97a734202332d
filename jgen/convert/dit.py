"""Weights of DiT (facebookresearch) and of diffusers' port of it -> `jgen.models.dit`."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, join_qkv, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.models.dit import DiT

DIFFUSERS: dict[str, tuple[Any, ...] | None] = {
    "dropout": ANY, "norm_num_groups": ANY, "upcast_attention": ANY, "attention_bias": (False, True),
    "activation_fn": ("gelu-approximate", "gelu"), "norm_type": ("ada_norm_zero",), "norm_elementwise_affine": (False,),
}  # fmt: skip
"""Options of diffusers' network that change no number here, or that have these values."""


def dit(
    weights: Mapping[str, np.ndarray], *, in_channels: int = 4, hidden_size: int = 1152, depth: int = 28, num_heads: int = 16,
    input_size: int = 32, patch_size: int = 2, num_classes: int = 1000, learn_sigma: bool = True, mlp_ratio: float = 4.0,
    class_dropout_prob: float = 0.1, **other: Any,
) -> tuple[DiT, dict[str, Any]]:  # fmt: skip
    """The network and its {"params": ...} from the reference's names and constructor arguments.

    A network that was trained without dropping labels (class_dropout_prob=0) gets zeros as the embedding of none. Raises
    UserError for an argument that the reference doesn't have, and for weights that do not fit.
    """
    check_options(other, (), {}, "DiT")
    outputs = in_channels * (2 if learn_sigma else 1)
    net = DiT(outputs, hidden_size, depth, num_heads, patch_size, num_classes, mlp_ratio)

    def path(name: str) -> Path:
        if name.startswith("y_embedder."):
            return ("embedder", "y_embedder", "embedding")
        flat = linen_path(name)
        if name.startswith("t_embedder."):
            return ("embedder", "_".join(flat[:-1]), flat[-1])
        if name.startswith("blocks."):
            return (flat[0], "_".join(flat[1:-1]), flat[-1])
        return ("_".join(flat[:-1]), flat[-1])

    used = {k: v for k, v in weights.items() if k != "pos_embed"}  # made here
    table = "y_embedder.embedding_table.weight"
    if not class_dropout_prob and table in used:
        used[table] = np.concatenate([used[table], np.zeros_like(used[table][:1])])
    return net, _variables(net, used, path, in_channels, input_size)


def diffusers(
    weights: Mapping[str, np.ndarray], *, in_channels: int = 4, out_channels: int | None = None, num_attention_heads: int = 16,
    attention_head_dim: int = 72, num_layers: int = 28, sample_size: int = 32, patch_size: int = 2,
    num_embeds_ada_norm: int = 1000, attention_bias: bool = True, activation_fn: str = "gelu-approximate",
    norm_eps: float = 1e-5, **other: Any,
) -> tuple[DiT, dict[str, Any]]:  # fmt: skip
    """As `dit`, of diffusers' DiTTransformer2DModel; without attention_bias queries, keys and values get zeros for one.

    norm_eps is that of the norms before the MLPs.
    """
    given = {**other, "attention_bias": attention_bias, "activation_fn": activation_fn}
    check_options(given, (), DIFFUSERS, "DiTTransformer2DModel")
    width, outputs = num_attention_heads * attention_head_dim, in_channels if out_channels is None else out_channels
    net = DiT(
        outputs, width, num_layers, num_attention_heads, patch_size, num_embeds_ada_norm, own_embedders=True,
        mlp_epsilon=norm_eps, exact_gelu=activation_fn == "gelu",
    )  # fmt: skip
    if not attention_bias:
        names = [k.removesuffix("weight") for k in weights if k.endswith(tuple(f".to_{x}.weight" for x in "qkv"))]
        weights = {**weights, **{f"{name}bias": np.zeros(width, np.float32) for name in names}}
    joined = {k: v for k, v in join_qkv(weights).items() if not k.endswith("pos_embed.pos_embed")}  # made here
    names = {
        "attn1.qkv": "attn_qkv",
        "attn1.to_out.0": "attn_proj",
        "ff.net.0.proj": "mlp_fc1",
        "ff.net.2": "mlp_fc2",
        "norm1.linear": "adaLN_modulation_1",
    }
    embedders = {"timestep_embedder.linear_1": "t_embedder_mlp_0", "timestep_embedder.linear_2": "t_embedder_mlp_2"}
    embedders |= {"class_embedder.embedding_table": "y_embedder"}
    outer = {
        "pos_embed.proj": "x_embedder_proj",
        "proj_out_1": "final_layer_adaLN_modulation_1",
        "proj_out_2": "final_layer_linear",
    }

    def path(name: str) -> Path:
        stem, kind = name.rsplit(".", 1)
        if stem in outer:
            return (outer[stem], kind)
        if not stem.startswith("transformer_blocks."):
            return tuple(name.split("."))
        _, number, rest = stem.split(".", 2)
        if rest.startswith("norm1.emb."):
            return (f"embedder_{number}", embedders.get(rest.removeprefix("norm1.emb."), rest), kind)
        return (f"blocks_{number}", names.get(rest, rest), kind)

    return net, _variables(net, joined, path, in_channels, sample_size)


def _variables(net: DiT, weights: Mapping[str, np.ndarray], path: Any, channels: int, size: int) -> dict[str, Any]:
    label = jnp.zeros(1, jnp.int32) if net.classes else None
    shapes = param_shapes(net.init, jnp.zeros((1, size, size, channels)), jnp.zeros(1), label)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        return array if "embedding_table" in name else to_linen(array, shape)

    return {"params": fill(shapes, weights, path, layout)}
