"""Pictures: grids of images and curves of metrics."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from jgen import figures
from jgen.errors import UserError
from jgen.files import replacing

CURVE_COLOUR = "#1f5fbf"


def to_bytes(images: Any) -> np.ndarray:
    """Images in [-1, 1] -> uint8; the inverse of the pipeline's scaling, rounded and clipped.

    Raises UserError for whole numbers, which are no such images.
    """
    if not np.issubdtype((dtype := np.asarray(images).dtype), np.inexact):
        raise UserError(f"images: of {dtype}; must be floats in [-1, 1]")
    return np.clip(np.round((np.asarray(images, np.float32) + 1) * 127.5), 0, 255).astype(np.uint8)


def check_finite(images: Any, what: str) -> None:
    """Raises UserError where some of images [N, H, W, C] hold NaN or infinity, which a picture would show as black."""
    bad = int((~np.isfinite(np.asarray(images))).any((1, 2, 3)).sum())
    if bad:
        raise UserError(f"{what}: {bad} of {len(images)} images are not finite")


def grid(images: Any, columns: int = 0, least: int = 512) -> Image.Image:
    """A sheet of images [N, H, W, 1 or 3] in [-1, 1] (or uint8), enlarged by whole pixels to about `least` wide."""
    pixels = images if getattr(images, "dtype", None) == np.uint8 else to_bytes(images)
    if pixels.ndim != 4 or not len(pixels) or pixels.shape[-1] not in (1, 3):
        raise UserError(f"images of shape {list(pixels.shape)}; must be [N, H, W, 1 or 3], at least one")
    n, h, w, c = pixels.shape
    columns = columns or int(np.ceil(np.sqrt(n)))
    rows = -(-n // columns)
    sheet = np.full((rows * (h + 1) + 1, columns * (w + 1) + 1, c), 128, np.uint8)
    for i, image in enumerate(pixels):
        top, left = (i // columns) * (h + 1) + 1, (i % columns) * (w + 1) + 1
        sheet[top : top + h, left : left + w] = image
    picture = Image.fromarray(sheet.squeeze(-1) if c == 1 else sheet)
    factor = max(1, round(least / picture.width))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def tiles(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """The images uint8 [N, H, W, 3] of a picture that `grid` made. Raises ValueError for any other picture.

    A last row that was not full ends in grey images.
    """
    for factor in range(picture.width // (width + 2), 0, -1):
        columns, rows = picture.width // factor // (width + 1), picture.height // factor // (height + 1)
        if picture.size == (factor * (columns * (width + 1) + 1), factor * (rows * (height + 1) + 1)):
            small = np.asarray(picture.convert("RGB"))[factor // 2 :: factor, factor // 2 :: factor]
            inner = small[1:, 1:].reshape(rows, height + 1, columns, width + 1, 3)[:, :height, :, :width]
            return inner.swapaxes(1, 2).reshape(-1, height, width, 3)
    raise ValueError(f"size={picture.size}: must be that of a grid of {height}x{width} images")


def save(picture: Image.Image, path: Path, about: str = "") -> None:
    """Writes a PNG so that a reader never sees half of one; about: what it shows, kept in the file as its description."""
    text = PngInfo()
    if about:
        text.add_itxt("Description", about)
    with replacing(path) as temporary:
        picture.save(temporary, "png", pnginfo=text)


def smooth(values: np.ndarray, window: int) -> np.ndarray:
    """Trailing mean over up to `window` values."""
    total = np.cumsum(np.insert(values, 0, 0.0))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - window, 0)
    return (total[ends] - total[starts]) / (ends - starts)


def curves(records: list[dict[str, Any]], names: list[str] | None = None) -> Image.Image:
    """The metrics of a run over its steps, a panel each; faint as recorded, bold as a trailing mean.

    Without names all of them, but for what is not finite and learning rates that never change.
    """
    found = {k: {r[k] for r in records if k in r} for k in {k for r in records for k in r} - {"step"}}
    still = {k for k, values in found.items() if k.startswith("learning_rate/") and len(values) < 2}
    names = names or sorted(k for k in found if not k.endswith("nonfinite") and k not in still)
    figure = figures.new(6, 2.6 * max(len(names), 1))
    for i, name in enumerate(names):
        axes = figure.add_subplot(len(names), 1, i + 1)
        points = [(r["step"], r[name]) for r in records if name in r]
        steps, values = np.asarray(points, float).reshape(-1, 2).T
        axes.plot(steps, values, color=CURVE_COLOUR, alpha=0.25, linewidth=0.8)
        axes.plot(steps, smooth(values, max(len(values) // 30, 1)), color=CURVE_COLOUR)
        if len(values) and values.min() > 0 and values.max() > 10 * np.median(values):
            axes.set_yscale("log")
        figures.label(axes, "step", name)
    return figures.render(figure)
