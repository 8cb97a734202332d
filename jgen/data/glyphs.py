"""Characters drawn from the fonts that come with matplotlib: any resolution, exact factors, captions, no end.

Image i is a function of (seed, i) alone. Its factors are known exactly, so that disentanglement, conditioning and text
can be measured against the truth.
"""

import functools
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jgen.data.source import Example
from jgen.errors import UserError

CHARACTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "cmr10",
)  # fmt: skip
COLOURS = {
    "black": (0, 0, 0), "white": (255, 255, 255), "red": (214, 39, 40), "green": (44, 160, 44), "blue": (31, 80, 200),
    "yellow": (250, 220, 30), "purple": (148, 60, 190), "orange": (255, 127, 14), "cyan": (23, 190, 207),
    "pink": (247, 140, 194),
}  # fmt: skip
GREYS = {"black": (0,), "white": (255,), "grey": (128,)}
CAPTION_BYTES = 48
ENDLESS = 2**31 - 1


class Factors(NamedTuple):
    """The factors of variation of one image."""

    character: int
    font: int
    foreground: int
    background: int
    position: tuple[float, float]
    """Centre, right and down from the middle, in image widths."""
    scale: float
    """Font size in image heights."""
    rotation: float
    """Degrees anticlockwise."""


class Glyphs:
    """uint8 images [resolution, resolution, channels] with their factors, the label being the character.

    Further keys of an example: font, foreground, background (int32), position [2], scale, rotation (float32), and
    caption: uint8 [48], ASCII padded with zeros (`decode_caption`). The splits train and test never share an image.
    """

    endless = True
    classes = tuple(CHARACTERS)

    def __init__(self, resolution: int, channels: int = 3, seed: int = 0, split: str = "train"):
        if not 8 <= resolution <= 256:
            raise UserError(f"data.resolution={resolution}: glyphs are drawn from 8 to 256 pixels")
        if split not in ("train", "test"):
            raise UserError(f"data.split={split}: glyphs has train and test")
        self.shape = (resolution, resolution, channels)
        self.colours = COLOURS if channels == 3 else GREYS
        self.stream = (seed, split == "test")

    def __len__(self) -> int:
        return ENDLESS

    def factors(self, index: int) -> Factors:
        """The factors of image `index`."""
        rng = np.random.default_rng([*map(int, self.stream), int(index)])
        foreground, background = rng.choice(len(self.colours), 2, replace=False)
        size, height = _canvas(self.shape[0]), int(rng.uniform(0.5, 0.85) * _canvas(self.shape[0]))
        return Factors(
            int(rng.integers(len(CHARACTERS))),
            int(rng.integers(len(FONTS))),
            int(foreground),
            int(background),
            (float(rng.uniform(-0.12, 0.12)), float(rng.uniform(-0.12, 0.12))),
            height / size,
            float(rng.uniform(-40, 40)),
        )

    def caption(self, index: int) -> str:
        """Such as "a red rotated A on blue"; rotated means by more than 15 degrees, small and large by the scale."""
        return _caption(self.factors(index), tuple(self.colours))

    def __getitem__(self, index: int, /) -> Example:
        f = self.factors(index)
        text = _caption(f, tuple(self.colours)).encode("ascii")
        return {
            "image": draw(f, self.shape, tuple(self.colours.values())),
            "label": np.int32(f.character),
            "font": np.int32(f.font),
            "foreground": np.int32(f.foreground),
            "background": np.int32(f.background),
            "position": np.asarray(f.position, np.float32),
            "scale": np.float32(f.scale),
            "rotation": np.float32(f.rotation),
            "caption": np.frombuffer(text.ljust(CAPTION_BYTES, b"\0"), np.uint8),
        }


def decode_caption(caption: np.ndarray) -> str:
    """The text of an example's "caption".

    >>> decode_caption(np.frombuffer(b"a red A on blue" + bytes(33), np.uint8))
    'a red A on blue'
    """
    return bytes(np.asarray(caption, np.uint8)).rstrip(b"\0").decode("ascii")


def draw(f: Factors, shape: tuple[int, int, int], colours: tuple[tuple[int, ...], ...]) -> np.ndarray:
    """The image of some factors: drawn on a finer canvas, turned about its own centre, then averaged down."""
    size = _canvas(shape[0])
    centre = ((0.5 + f.position[0]) * size, (0.5 + f.position[1]) * size)
    mask = Image.new("L", (size, size))
    font = _font(FONTS[f.font], round(f.scale * size))
    ImageDraw.Draw(mask).text(centre, CHARACTERS[f.character], 255, font, anchor="mm")
    mask = mask.rotate(f.rotation, Image.Resampling.BILINEAR, center=centre).reduce(size // shape[0])
    cover = np.asarray(mask, np.float32)[..., None] / 255
    front, back = (np.asarray(colours[i], np.float32) for i in (f.foreground, f.background))
    return np.round(cover * front + (1 - cover) * back).astype(np.uint8)


def measured(images: np.ndarray) -> dict[str, np.ndarray]:
    """Factors of any glyph-like images [N, H, W, C] in [-1, 1], drawn here or by a model, as the pixels show them: name -> [N].

    "ground": the level of the background, in -1..1. "contrast": by how much the character is brighter. "right" and "down":
    from the middle to the character's centre, in image widths. "size": the deviation of its pixels from there. Where all
    pixels are the same, the last three are 0.
    """
    grey = np.asarray(images, np.float64).mean(-1)
    ground = np.median(_rim(grey), 1)
    ink = grey - ground[:, None, None]
    weight = np.abs(ink) / np.maximum(np.abs(ink).sum((1, 2), keepdims=True), 1e-6)
    down, right = (np.linspace(-0.5, 0.5, 2 * n + 1)[1::2] for n in grey.shape[1:])
    y, x = (weight * down[:, None]).sum((1, 2)), (weight * right).sum((1, 2))
    spread = (weight * (down[:, None] ** 2 + right**2)).sum((1, 2)) - x**2 - y**2
    return {
        "ground": ground,
        "contrast": (weight * ink).sum((1, 2)),
        "right": x,
        "down": y,
        "size": np.sqrt(np.maximum(spread, 0)),
    }


def colours_seen(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(foreground, background) of any glyph-like images [N, H, W, C] in [-1, 1], as indices into the colours' names, each [N].

    The background is the rim's median; the foreground the median of the pixels furthest from it, one in 128, which from 28
    pixels on no blurred edge mixes. At 16 pixels one foreground in 40 is taken for another, at 8 every third.
    """
    images = np.asarray(images, np.float64)
    shades = np.asarray(list((COLOURS if images.shape[-1] == 3 else GREYS).values())) / 127.5 - 1
    flat = images.reshape(len(images), -1, images.shape[-1])
    ground = np.median(_rim(images), 1)
    furthest = np.argsort(-((flat - ground[:, None]) ** 2).sum(-1), 1)[:, : max(1, flat.shape[1] // 128)]
    ink = np.median(np.take_along_axis(flat, furthest[..., None], 1), 1)
    front, back = (((seen[:, None] - shades) ** 2).sum(-1).argmin(-1) for seen in (ink, ground))
    return front, back


def _rim(images: np.ndarray) -> np.ndarray:
    """The outermost pixels of images [N, H, W, ...]: [N, pixels, ...]."""
    return np.concatenate([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1)


def _caption(f: Factors, colours: tuple[str, ...]) -> str:
    size = ["small"] if f.scale < 0.6 else ["large"] if f.scale > 0.75 else []
    turned = ["rotated"] if abs(f.rotation) > 15 else []
    words = ["a", *size, colours[f.foreground], *turned, CHARACTERS[f.character], "on", colours[f.background]]
    return " ".join(words)


def _canvas(resolution: int) -> int:
    """Pixels of the canvas that is averaged down to `resolution`: up to four times finer."""
    return resolution * max(1, min(4, 96 // resolution))


@functools.lru_cache(4096)
def _font(name: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{name}.ttf", size)
