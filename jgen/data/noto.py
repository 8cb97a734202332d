"""The bitmaps of the font Noto Color Emoji: each glyph's PNG, by the code points that it is drawn for."""

import os
from pathlib import Path
from typing import Any

from jgen.data.emoji_names import FIRST_TONE, JOINER, PERSONS, SELECTOR
from jgen.errors import UserError

FONT = Path(os.sep, "usr", "share", "fonts", "truetype", "noto", "NotoColorEmoji.ttf")
"""Where Debian's package fonts-noto-color-emoji puts the font."""
NO_START = (
    0x2640, 0x2642, 0x20E3, 0xE007F, 0x27A1, 0x2B1B, 0x2744, 0x2620, 0x26A7, 0x1F308, 0x1F32B, 0x1F466, 0x1F467, 0x1F4A8,
    0x1F4AB, 0x1F525, 0x1F5E8, 0x1F9BA, 0x1FA79,
)  # fmt: skip
"""Signs of gender, and what qualifies something before it: no sequence of several begins with them."""


def noto_bitmaps(path: Path) -> dict[tuple[int, ...], bytes]:
    """PNG bytes by code points. Raises UserError for another font or a damaged one.

    The font spells some sequences in both directions, for text from right to left; those are left out.
    """
    from fontTools.ttLib import TTFont  # which takes a fifth of a second of every start

    try:
        with TTFont(path, lazy=True) as font:
            images = {name: bitmap.imageData for name, bitmap in font["CBDT"].strikeData[0].items()}  # pyright: ignore
            spelled = _sequences(font)
    except Exception as error:  # fontTools raises many kinds for a damaged font
        raise UserError(f"{path}: not a font with bitmaps in colour ({type(error).__name__}: {error})") from error
    drawn: dict[tuple[int, ...], bytes] = {}
    used: set[str] = set()
    for points, glyph in sorted(spelled.items()):
        if glyph in images and glyph not in used and _forward(points):
            used.add(glyph)
            drawn[points] = images[glyph]
    return drawn


def _sequences(font: Any) -> dict[tuple[int, ...], str]:
    """{code points: glyph}: single ones, and those that the font joins to one."""
    points = {glyph: point for point, glyph in font.getBestCmap().items()}
    found = {(point,): glyph for glyph, point in points.items()}
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable if lookup.LookupType == 4 else ():
            for first, ligatures in table.ligatures.items():
                for ligature in ligatures:
                    glyphs = (first, *ligature.Component)
                    if all(glyph in points for glyph in glyphs):
                        found[tuple(points[glyph] for glyph in glyphs)] = ligature.LigGlyph
    return {tuple(p for p in sequence if p != SELECTOR) or sequence: glyph for sequence, glyph in found.items()}


def _forward(points: tuple[int, ...]) -> bool:
    """Whether a sequence is spelled from left to right."""
    tones = [i for i, p in enumerate(points) if FIRST_TONE <= p < FIRST_TONE + 5]
    if not points[1:]:
        return points[0] not in (0x20E3, 0xE007F, JOINER, SELECTOR)
    if points[0] in NO_START or JOINER in (points[0], points[-1]):
        return False
    if any(i == 0 or points[i - 1] == JOINER for i in tones):
        return False
    return JOINER not in points or points[0] in PERSONS or not any(p in PERSONS for p in points)
