"""The words that a set's captions have, so that a text which says nothing to a model is refused."""

from collections import Counter

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.glyphs import decode_caption
from jgen.errors import UserError, nearest

READ = 1000
"""Captions whose words count as known."""
EVERYWHERE = 0.9
"""Words of a larger share of the captions say nothing, such as "on" in those of glyphs."""


def check_words(text: str, data: DataConfig, seed: int) -> None:
    """Prints the words of a text that no caption of the set has. Raises UserError where it has none that say something.

    Captions that become features of a language model may have any words.
    """
    if not text.strip():
        raise UserError("text: must not be empty")
    if data.captions == "minilm":
        return
    source = open_source(DataConfig(data.name, resolution=data.resolution, channels=data.channels, root=data.root), seed)
    count = min(len(source), READ)
    captions = [decode_caption(source[i]["caption"]).split() for i in range(count)] if "caption" in source[0] else []
    seen = Counter(word for caption in captions for word in set(caption))
    telling = [word for word in seen if seen[word] <= EVERYWHERE * count]
    words = text.split()
    if captions and not set(words) & set(telling):
        few = ", ".join(sorted(telling, key=lambda word: (-seen[word], word))[:6])
        raise UserError(f"text={text}: has no word of the captions of {data.name}{nearest(words[-1], telling)}; such as {few}")
    if unknown := [word for word in words if captions and word not in seen]:
        print(f"text: {', '.join(unknown)} is in no caption of {data.name}, and means nothing here")
