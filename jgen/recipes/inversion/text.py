"""A text encoder into a generator's styles: TediGAN's visual-linguistic alignment (Xia et al. 2021, arXiv:2012.03308).

The text is brought to a space that images alone made: its code is drawn to that of its picture by the image encoder, which does
not move for it, and away from those of the batch's other pictures. The authors published no code of this part; the ranking loss
is that of Kiros et al. 2014 (arXiv:1411.2539), with in-batch negatives.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from jgen.config.inversion import EncoderConfig
from jgen.edit.space import StyleSpace
from jgen.models.image_text import TextEncoder
from jgen.objectives.contrastive import ranking, recall, similarities
from jgen.types import Array, Batch, Extra, Key, Metrics, Params


@dataclass(frozen=True)
class TextModel:
    """The player "text". encode: the image encoder, (params, extra, images) -> ws."""

    config: EncoderConfig
    space: StyleSpace
    encode: Callable[[Params, Extra, Array], Array]

    @property
    def net(self) -> TextEncoder:
        """A caption -> all rows, as offsets from the mean style."""
        return TextEncoder(self.space.num_ws * self.space.w_dim, self.config.text_width)

    def init(self, key: Key, caption: Array) -> Params:
        """Fresh weights, for captions like one [L] or its features [L, D]."""
        return {"text": self.net.init(key, caption[None])["params"]}

    def describe(self, params: Params, extra: Extra, captions: Array) -> Array:
        """ws [B, num_ws, D] of captions."""
        found: Any = self.net.apply({"params": params["text"]}, captions)
        return found.reshape(len(captions), self.space.num_ws, -1) + self.space.mean(extra)[None, None]

    def loss(self, params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        """The mean square distance from the pictures' codes, and the ranking loss of both, from the mean style on."""
        pictures = jax.lax.stop_gradient(self.encode(params, extra, batch["image"]))
        texts = self.describe(params, extra, batch["caption"])
        ours, theirs = ((ws - self.space.mean(extra)[None, None]).reshape(len(ws), -1) for ws in (pictures, texts))
        aligned, ranked = jnp.mean(jnp.square(texts - pictures)), ranking(ours, theirs, self.config.text_margin)
        metrics = {
            "text_distance": aligned,
            "text_ranking": ranked,
            "text_accuracy": recall(similarities(ours, theirs), 1),
        }
        return aligned + self.config.text_weight * ranked, (extra, metrics)
