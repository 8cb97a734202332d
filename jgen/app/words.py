"""The words that a set's captions have, so that a text which says nothing to a model is refused."""

from collections import Counter
from dataclasses import replace

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.glyphs import decode_caption
from jgen.data.source import Source
from jgen.errors import UserError, nearest

READ = 1000
"""Captions of an endless set whose words count as known."""
EVERYWHERE = 0.9
"""Words of a larger share of the captions say nothing, such as "on" in those of glyphs."""


def captions_of(source: Source) -> list[str]:
    """The captions of a set, of an endless one those of the first `READ` examples; none of a set without."""
    if "caption" not in source[0]:
        return []
    return [decode_caption(source[i]["caption"]) for i in range(READ if source.endless else len(source))]


def known_text(text: str, data: DataConfig, seed: int, option: str = "text") -> str:
    """The text, in small letters where all captions of the run's set are; prints its words that no caption has.

    option: that names the text. Raises UserError where it has none that say something. Captions that become features of a
    language model may have any words.
    """
    if not text.strip():
        raise UserError(f"{option}: must not be empty")
    if data.captions == "minilm":
        return text
    captions = [caption.split() for caption in captions_of(open_source(replace(data, captions="bytes"), seed))]
    if captions and all(word == word.lower() for caption in captions for word in caption):
        text = text.lower()
    seen = Counter(word for caption in captions for word in set(caption))
    telling = [word for word in seen if seen[word] <= EVERYWHERE * len(captions)]
    words = text.split()
    if captions and not set(words) & set(telling):
        few = ", ".join(sorted(telling, key=lambda word: (-seen[word], word))[:6])
        raise UserError(
            f"{option}={text}: has no word of the captions of {data.name}{nearest(words[-1], telling)}; such as {few}"
        )
    if unknown := [word for word in words if captions and word not in seen]:
        print(f"{option}: {', '.join(unknown)} is in no caption that this run was trained on, and means nothing here")
    return text
