"""Features of texts by MiniLM, or another BERT, from the files of its package; needs the package tokenizers."""

import functools
import importlib
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jgen import convert
from jgen.errors import UserError

tokenizers: Any = importlib.import_module("tokenizers") if find_spec("tokenizers") else None  # optional

TOKENS = 24
"""The most tokens of a caption, with the one at its beginning and the one at its end."""
KEPT = 8192
"""Captions whose features are kept in memory: 37 kB each."""


def features_of(folder: Path) -> Callable[[str], np.ndarray]:
    """The features of a text's word pieces by a BERT: a folder with model.safetensors, config.json and tokenizer.json."""
    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    host = jax.local_devices(backend="cpu")[0]
    net, variables = convert.minilm.minilm(
        convert.load_weights(folder / "model.safetensors"), **json.loads((folder / "config.json").read_text())
    )
    variables = jax.device_put(variables, host)
    run: Any = jax.jit(net.apply)

    @functools.lru_cache(KEPT)
    def describe(text: str) -> np.ndarray:
        tokens = tokenizer.encode(text).ids
        if len(tokens) > TOKENS:
            raise UserError(f"caption of {len(tokens)} tokens: at most {TOKENS} are read, of {text[:60]!r}")
        padded = np.zeros((1, TOKENS), np.int32)
        padded[0, : len(tokens)] = tokens
        mask = np.arange(TOKENS)[None] < len(tokens)
        features = np.array(run(variables, *jax.device_put((padded, mask), host))[0])
        features[len(tokens) :] = 0
        features.flags.writeable = False
        return features

    return describe
