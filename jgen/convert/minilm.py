"""Weights of all-MiniLM-L6-v2 (sentence-transformers), or of another BERT, -> `jgen.models.minilm`."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jgen.convert.common import Path, fill, param_shapes, to_linen
from jgen.convert.options import ANY, check_options
from jgen.models.minilm import MiniLM

OUTER = {
    "embeddings.word_embeddings": "word",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "type",
    "embeddings.LayerNorm": "norm",
}
LAYER = {
    "attention.self.query": ("attention", "query"),
    "attention.self.key": ("attention", "key"),
    "attention.self.value": ("attention", "value"),
    "attention.output.dense": ("attention", "out"),
    "attention.output.LayerNorm": ("norm_a",),
    "intermediate.dense": ("mlp_in",),
    "output.dense": ("mlp_out",),
    "output.LayerNorm": ("norm_m",),
}

OPTIONS = {
    "hidden_act": ("gelu",), "position_embedding_type": ("absolute",), "layer_norm_eps": (1e-12,), "model_type": ("bert",),
    "is_decoder": (False,), "add_cross_attention": (False,), "chunk_size_feed_forward": (0,),
} | dict.fromkeys((
    "_name_or_path", "architectures", "attention_probs_dropout_prob", "classifier_dropout", "dtype", "gradient_checkpointing",
    "hidden_dropout_prob", "initializer_range", "pad_token_id", "torch_dtype", "transformers_version", "type_vocab_size",
    "use_cache",
), ANY)  # fmt: skip
"""Options of a config.json besides sizes: the one value that this network has, or ANY where it changes nothing here."""


def minilm(
    weights: Mapping[str, np.ndarray], *, vocab_size: int = 30522, hidden_size: int = 384, num_hidden_layers: int = 6,
    num_attention_heads: int = 12, intermediate_size: int = 1536, max_position_embeddings: int = 512, **other: Any,
) -> tuple[MiniLM, dict[str, Any]]:  # fmt: skip
    """The network and its {"params": ...} from the names and the config.json of Hugging Face's BertModel.

    Raises UserError for an option of another network, by name, and for weights that do not fit.
    """
    check_options(other, (), OPTIONS, "BertModel")
    net = MiniLM(
        vocab_size, hidden_size, num_hidden_layers, num_attention_heads, intermediate_size, max_position_embeddings
    )  # fmt: skip

    def path(name: str) -> Path:
        stem, _, kind = name.rpartition(".")
        number, _, rest = stem.removeprefix("encoder.layer.").partition(".")
        if rest not in LAYER:
            return (OUTER.get(stem, stem), kind)
        first, *more = LAYER[rest]
        return (f"{first}_{number}", *more, kind)

    def layout(name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if "embeddings." in name:
            return array
        array = to_linen(array, shape)
        return array.reshape(shape) if ".attention." in name else array  # heads are an axis of their own in Linen

    # Of the sentence's first token and of masked words: jgen has no use for either.
    used = {k: v for k, v in weights.items() if not k.startswith(("pooler.", "cls.")) and not k.endswith("position_ids")}
    shapes = param_shapes(net.init, jnp.zeros((1, 2), jnp.int32), jnp.ones((1, 2), bool))
    return net, {"params": fill(shapes, used, path, layout)}
