"""rosinality's vq-vae-2-pytorch."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import fill, linen_path, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.models.vqvae import VQVAE
from jgen.objectives.vqvae import Codebook


def vqvae2(
    weights: Mapping[str, np.ndarray], *, in_channel: int = 3, channel: int = 128, n_res_block: int = 2,
    n_res_channel: int = 32, embed_dim: int = 64, n_embed: int = 512, **other: Any,
) -> tuple[VQVAE, dict[str, Any], list[Codebook]]:  # fmt: skip
    """(network, variables, codebooks coarse to fine) of its VQVAE class; images in its scale, which was (x - 0.5) / 0.5.

    decay is 0.99 whatever it says, as in the reference, whose quantisers are never given it. Raises UserError for an argument
    that its constructor doesn't have, and for weights that do not fit.
    """
    check_options(other, (), {"decay": ANY}, "VQVAE")
    net = VQVAE(in_channel, channel, n_res_block, n_res_channel, embed_dim)
    used = {k: v for k, v in weights.items() if not k.startswith(("quantize_t.", "quantize_b."))}
    side, books = jnp.zeros((1, 16, 16, in_channel)), [jnp.zeros((n_embed, embed_dim))] * 2
    shapes = param_shapes(net.init, side, books)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        transposed = array.ndim == 4 and array.shape[2:] == (4, 4) and not name.startswith("enc_")
        return array.transpose(2, 3, 0, 1) if transposed else to_linen(array, shape)

    codebooks = []
    for level in ("t", "b"):
        embed, size, total = (weights[f"quantize_{level}.{k}"] for k in ("embed", "cluster_size", "embed_avg"))
        zero = jnp.zeros((), jnp.int32)
        codebooks.append(Codebook(jnp.asarray(embed.T), jnp.asarray(size), jnp.asarray(total.T), zero))
    return net, {"params": fill(shapes, used, linen_path, layout)}, codebooks
