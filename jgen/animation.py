"""Frames -> one moving picture that any browser shows: GIF, WebP or animated PNG."""

from pathlib import Path

import numpy as np
from PIL import Image

from jgen.errors import UserError
from jgen.files import replacing

KINDS = {".gif": "GIF", ".webp": "WEBP", ".png": "PNG", ".apng": "PNG"}
"""Suffix -> the format of Pillow. WebP and PNG keep every colour; a GIF has 256 for each frame."""


def save_animation(path: str | Path, frames: np.ndarray, fps: float = 20.0) -> None:
    """Writes frames as a picture that repeats for ever; the suffix says which kind: .gif, .webp, or .png or .apng.

    frames: uint8 [T, H, W, C] with 1, 3 or 4 channels, T >= 1; `jgen.pictures.to_bytes` makes them of images in [-1, 1].
    fps: frames a second, above 0 up to 100 (a GIF counts hundredths of a second). Raises UserError for anything else.
    """
    path, frames = Path(path), np.asarray(frames)
    if path.suffix not in KINDS:
        raise UserError(f"{path}: an animation must end in one of {', '.join(KINDS)}")
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] not in (1, 3, 4) or not frames.size:
        raise UserError(f"frames: {frames.dtype} {list(frames.shape)}, must be uint8 [T, H, W, C] with 1, 3 or 4 channels")
    if not 0 < fps <= 100:
        raise UserError(f"fps={fps}: must be above 0 and at most 100")
    first, *rest = [Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame) for frame in frames]
    ends = np.round(np.arange(1, len(frames) + 1) * 100 / fps) * 10  # milliseconds, rounded so that none is lost in the sum
    durations = [int(d) for d in np.diff(ends, prepend=0)]
    kind = KINDS[path.suffix]
    how = {"lossless": True} if kind == "WEBP" else {"disposal": 1} if kind == "GIF" else {}
    with replacing(path) as temporary:
        first.save(temporary, kind, save_all=True, append_images=rest, duration=durations, loop=0, **how)
