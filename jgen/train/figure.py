"""A picture within a page, with its caption, at a size that is a whole multiple of its pixels."""

import base64
import html
import io
from pathlib import Path

import numpy as np
from PIL import Image

from jgen.data.images import FORMATS

LARGEST = 32
"""Enlargements that are looked for."""
SHOWN = 560
"""Pixels of a screen that an enlarged picture takes at most."""


def enlargement(pixels: np.ndarray) -> int:
    """The greatest k up to `LARGEST` of whose k x k blocks an image [H, W, ...] is made, each of one colour.

    >>> enlargement(np.kron(np.arange(6).reshape(2, 3), np.ones((4, 4))))
    4
    """
    height, width = pixels.shape[:2]
    for k in range(min(LARGEST, height, width), 1, -1):
        if height % k == 0 and width % k == 0:
            small = pixels[::k, ::k]
            if np.array_equal(small.repeat(k, 0).repeat(k, 1), pixels):
                return k
    return 1


def figure(source: Path | Image.Image, caption: str, plot: bool = False) -> str:
    """HTML of a picture with its caption, which is its alternative text too.

    A grid that was enlarged is stored at its own size, and shown at the largest whole multiple that fits. plot: of a drawing,
    which is scaled smoothly.
    """
    if isinstance(source, Path):
        with Image.open(source, formats=FORMATS) as opened:
            opened.load()
            picture, about = opened, opened.info.get("Description", "")
            caption = about[:300] if isinstance(about, str) and about else caption
    else:
        picture = source
    factor = 1 if plot else enlargement(np.asarray(picture))
    width, height = picture.width // factor, picture.height // factor
    if factor > 1:
        picture = picture.resize((width, height), Image.Resampling.NEAREST)
    fits = f"max({width}px,round(down,min(100cqi,{max(SHOWN, width)}px),{width}px))"
    style = f"width:{width}px;max-width:100%" if factor == 1 else f"width:{width * factor}px;width:{fits}"
    buffer = io.BytesIO()
    picture.save(buffer, "png")
    data = base64.b64encode(buffer.getvalue()).decode()
    text, kind = html.escape(caption), "plot" if plot else "pixels" if factor > 1 else ""
    image = f'<img alt="{text}" width="{width}" height="{height}" style="{style}" src="data:image/png;base64,{data}">'
    return f"<figure class='{kind}'>{image}<figcaption>{text}</figcaption></figure>"
