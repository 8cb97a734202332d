"""CLIP's byte-pair tokens of a text, from a file of merges: the authors' bpe_simple_vocab_16e6.txt.gz, or any of its form.

The merges and the splitting into words are those of the authors' tokenizer; broken Unicode is not repaired, as ftfy does there.
"""

import functools
import html
import re
import sys
import unicodedata
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from jgen.errors import UserError
from jgen.untrusted import read_maybe_gzipped

MERGES = 49152 - 256 - 2
"""Merges that the authors use of their file, which has more."""
START, END, STOP = "<|startoftext|>", "<|endoftext|>", "</w>"

Tokens = Callable[[str], np.ndarray]
"""Text -> int32 [context], zeros behind its last token."""


def tokenizer(path: str | Path, context: int = 77) -> Tokens:
    """The tokens of a text, with those of its beginning and its end. Raises UserError for another file, and a long text.

    The first line of the file is a header; each other line is two pieces that are joined, the most frequent first.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"vocabulary={path}: no such file; CLIP's is bpe_simple_vocab_16e6.txt.gz")
    try:
        lines = read_maybe_gzipped(path).decode("utf-8").split("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"vocabulary={path}: no text of merges ({type(error).__name__})") from error
    merges = [tuple(line.split()) for line in lines[1 : MERGES + 1] if line.strip()]
    if not merges or any(len(pair) != 2 for pair in merges):
        raise UserError(f"vocabulary={path}: must have a header, then two pieces a line, as bpe_simple_vocab_16e6.txt has")
    letters = list(byte_letters().values())
    pieces = [*letters, *(letter + STOP for letter in letters), *("".join(pair) for pair in merges), START, END]
    number = {piece: i for i, piece in enumerate(pieces)}
    rank = {pair: i for i, pair in enumerate(merges)}

    def tokens(text: str) -> np.ndarray:
        words = _words().findall(" ".join(html.unescape(html.unescape(text)).split()).lower())
        found = [number[START], *(number[piece] for word in words for piece in _pieces(word, rank)), number[END]]
        if len(found) > context:
            raise UserError(f"text of {len(found)} tokens: CLIP reads {context}, of {text[:60]!r}")
        return np.pad(np.asarray(found, np.int32), (0, context - len(found)))

    return tokens


@functools.cache
def byte_letters() -> dict[int, str]:
    """A printable character for every byte: itself where it is one, else those from 256 on."""
    own = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {byte: chr(256 + i) for i, byte in enumerate(others)}


@functools.cache
def _words() -> re.Pattern[str]:
    """Words, single numerals, and runs of other signs; endings such as 's stand alone."""
    numbers = "".join(chr(i) for i in range(128, sys.maxunicode + 1) if unicodedata.category(chr(i)) in ("Nl", "No"))
    special = "|".join(map(re.escape, (START, END)))
    return re.compile(rf"{special}|'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_{numbers}]+|[\d{numbers}]|(?:[^\s\w]|_)+")


def _pieces(word: str, rank: dict[tuple[str, ...], int]) -> list[str]:
    """A word's pieces: neighbours are joined, the pair of lowest rank first, until none is left in the table."""
    if word in (START, END):
        return [word]
    letters = [byte_letters()[byte] for byte in word.encode("utf-8")]
    pieces = [*letters[:-1], letters[-1] + STOP]
    while True:
        pairs = set(pairwise(pieces))
        best = min(pairs, key=lambda pair: rank.get(pair, len(rank)), default=("", ""))
        if best not in rank:
            return pieces
        joined: list[str] = []
        for piece in pieces:
            if joined and (joined[-1], piece) == best:
                joined[-1] += piece
            else:
                joined.append(piece)
        pieces = joined
