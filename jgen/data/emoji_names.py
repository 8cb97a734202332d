"""Captions and exact attributes of emoji, from their code points.

Names are those of `unicodedata`. The few jobs, whose pictures are a person and a thing (a rocket for an astronaut), and the
groups of Unicode's emoji list (emoji-test.txt, 15.1) are tables here.
"""

import bisect
import re
import unicodedata
from typing import NamedTuple

CATEGORIES = ("smiley", "people", "animal", "food", "travel", "activity", "object", "symbol", "flag")
TONES = ("no tone", "light", "medium-light", "medium", "medium-dark", "dark", "mixed")
GENDERS = ("unstated", "woman", "man", "both")
KINDS = tuple(c for c in CATEGORIES if c != "people") + tuple(f"people {g} {t}" for g in GENDERS for t in TONES)
"""Classes: the category, and of people also gender and tone. Some have no picture in some sets."""

JOINER, SELECTOR, KEYCAP = 0x200D, 0xFE0F, 0x20E3
WOMAN_SIGN, MAN_SIGN = 0x2640, 0x2642
FIRST_TONE = 0x1F3FB
FIRST_LETTER, FIRST_TAG, LAST_TAG = 0x1F1E6, 0xE0020, 0xE007F
PERSONS = {
    0x1F468: (0x1F9D1, "man"), 0x1F469: (0x1F9D1, "woman"), 0x1F466: (0x1F9D2, "man"), 0x1F467: (0x1F9D2, "woman"),
    0x1F474: (0x1F9D3, "man"), 0x1F475: (0x1F9D3, "woman"), 0x1F9D1: (0x1F9D1, ""),
}  # fmt: skip
"""Code points of a person: the one that leaves the gender open, and the gender."""
NEUTRAL = {
    0x1F473: "person with turban", 0x1F935: "person in tuxedo", 0x1F470: "person with veil",
    0x1F46F: "people with bunny ears",
}  # fmt: skip
"""Names that tell a gender which the picture leaves open where no sign follows."""
ROLES = {
    0x1F33E: "farmer", 0x1F373: "cook", 0x1F37C: "feeding a baby", 0x1F384: "in a christmas costume", 0x1F393: "student",
    0x1F3A4: "singer", 0x1F3A8: "artist", 0x1F3EB: "teacher", 0x1F3ED: "factory worker", 0x1F4BB: "technologist",
    0x1F4BC: "office worker", 0x1F527: "mechanic", 0x1F52C: "scientist", 0x1F680: "astronaut", 0x1F692: "firefighter",
    0x2695: "health worker", 0x2696: "judge", 0x2708: "pilot", 0x1F9AF: "with a cane", 0x1F9BC: "in a motorized wheelchair",
    0x1F9BD: "in a manual wheelchair", 0x1F9B0: "with red hair", 0x1F9B1: "with curly hair", 0x1F9B2: "without hair",
    0x1F9B3: "with white hair",
}  # fmt: skip
"""The jobs and looks of a person, by the thing that follows."""
NEWER = {
    0x1F6DC: "wireless", 0x1FA75: "light blue heart", 0x1FA76: "grey heart", 0x1FA77: "pink heart", 0x1FA87: "maracas",
    0x1FA88: "flute", 0x1FAAD: "folding hand fan", 0x1FAAE: "hair pick", 0x1FAAF: "khanda", 0x1FABB: "hyacinth",
    0x1FABC: "jellyfish", 0x1FABD: "wing", 0x1FABF: "goose", 0x1FACE: "moose", 0x1FACF: "donkey", 0x1FADA: "ginger root",
    0x1FADB: "pea pod", 0x1FAE8: "shaking face", 0x1FAF7: "leftwards pushing hand", 0x1FAF8: "rightwards pushing hand",
}  # fmt: skip
"""Names of Unicode 15, which Python 3.11's unicodedata does not have: captions do not depend on Python's version."""
FEMALE_WORDS = {"woman", "women", "girl", "princess", "mother", "queen"}
MALE_WORDS = {"man", "men", "boy", "prince", "father"}

_LETTERS = dict(zip("spaftcoyg", range(len(CATEGORIES))))
_RUNS = """
0y 231at 2328o 23cfy 23f0t 23f8y 2600t 260eo 2611y 2614t 2615f 2618a 261dp 2620s 2622y 2639s 2640y 265fc 2668t 267by 2692o
2693t 2694o 2695y 2696o 269by 26a1t 26a7y 26b0o 26bdc 26c4t 26cey 26cfo 26d4y 26e9t 26f3c 26f4t 26f7p 26f8c 26f9p 26fat
2702o 2705y 2708t 2709o 270ap 270fo 2714y 2728c 2733y 2744t 2747y 2763s 2795y 2b50t 2b55y 1f004c 1f170y 1f300t 1f32df 1f331a
1f336f 1f337a 1f33df 1f33ea 1f345f 1f380c 1f382f 1f383c 1f385p 1f386c 1f38cg 1f38dc 1f392o 1f396c 1f399o 1f39fc 1f3a0t
1f3a3c 1f3a4o 1f3a6y 1f3a7o 1f3a8c 1f3a9o 1f3aat 1f3abc 1f3aco 1f3adc 1f3b5o 1f3bdc 1f3c1g 1f3c2p 1f3c5c 1f3c7p 1f3c8c
1f3cap 1f3cdt 1f3cfc 1f3d4t 1f3e7y 1f3e8t 1f3eeo 1f3eft 1f3f3g 1f3f5a 1f3f7o 1f3f8c 1f3f9o 1f3faf 1f400a 1f440p 1f451o
1f463p 1f479s 1f47cp 1f47ds 1f481p 1f484o 1f485p 1f488t 1f489o 1f48bs 1f48do 1f48fp 1f490a 1f491p 1f492t 1f493s 1f4a0y
1f4a1o 1f4a2s 1f4a3o 1f4a4s 1f4a7t 1f4a8s 1f4aap 1f4abs 1f4aea 1f4afs 1f4b0o 1f4b1y 1f4b3o 1f4bat 1f4bbo 1f4dby 1f4dco
1f4f3y 1f4f7o 1f500y 1f507o 1f518y 1f525t 1f526o 1f52af 1f52bc 1f52co 1f52ec 1f52fy 1f54aa 1f54bt 1f54ey 1f550t 1f56fo
1f570t 1f573s 1f574p 1f576o 1f577a 1f579c 1f57ap 1f587o 1f590p 1f5a4s 1f5a5o 1f5bcc 1f5c2o 1f5e3p 1f5e8s 1f5f3o 1f5fat
1f5ffo 1f600s 1f645p 1f648s 1f64bp 1f680t 1f6a3p 1f6a4t 1f6a9g 1f6aao 1f6aby 1f6aco 1f6ady 1f6b2t 1f6b3y 1f6b4p 1f6b7y
1f6bdo 1f6bey 1f6bfo 1f6c0p 1f6c1o 1f6c2y 1f6cbo 1f6ccp 1f6cdo 1f6cet 1f6cfo 1f6d0y 1f6d1t 1f6d2o 1f6d5t 1f6d7o 1f6d8t
1f6dcy 1f6ddt 1f6e0o 1f6e2t 1f6f7c 1f6f8t 1f7e0y 1f90cp 1f90ds 1f90fp 1f910s 1f918p 1f920s 1f926p 1f927s 1f930p 1f93fc
1f940a 1f941o 1f942f 1f945c 1f950f 1f970s 1f977p 1f978s 1f97bo 1f980a 1f9afo 1f9b4p 1f9bao 1f9bbp 1f9bct 1f9bep 1f9c0f
1f9ccp 1f9d0s 1f9d1p 1f9e1s 1f9e2o 1f9e7c 1f9eao 1f9edt 1f9eeo 1f9f1t 1f9f2o 1f9f3t 1f9f4o 1f9f5c 1f9f7o 1f9f8c 1f9f9o
1fa75s 1fa78o 1fa80c 1fa82t 1fa83o 1fa84c 1fa87o 1fa90t 1fa91o 1faa1c 1faa3o 1faa8t 1faa9c 1faaao 1faafy 1fab0a 1fab5t
1fab6a 1fac0p 1facda 1fad0f 1fadfy 1fae0s 1fae6p 1fae7o 1fae8s 1faf0p
"""
_GROUPS = [(int(run[:-1], 16), _LETTERS[run[-1]]) for run in _RUNS.split()]
"""Where a run of code points of one category begins, and the category, by a letter (y symbol, c activity, g flag)."""


class Emoji(NamedTuple):
    """The attributes of one picture."""

    caption: str
    base: str
    """The code points in hex, without skin tones and gender, so that all variants of a thing share it."""
    tone: int
    """Index into TONES."""
    gender: int
    """Index into GENDERS."""
    category: int
    """Index into CATEGORIES."""

    @property
    def kind(self) -> int:
        """Index into KINDS."""
        name = CATEGORIES[self.category]
        return KINDS.index(f"people {GENDERS[self.gender]} {TONES[self.tone]}" if name == "people" else name)


def points_of(stem: str) -> tuple[int, ...]:
    """The code points that a file's name spells in hex, without selectors of a style; empty where it spells none.

    >>> points_of("1f44b-1f3fe") == points_of("emoji_u1f44b_1f3fe") == (0x1F44B, 0x1F3FE)
    True
    """
    stem = stem.lower().removeprefix("emoji_u")
    if not re.fullmatch(r"[0-9a-f]{2,6}([-_][0-9a-f]{2,6}){0,15}", stem):
        return ()
    points = tuple(int(part, 16) for part in re.split("[-_]", stem))
    if not all(p <= 0x10FFFF and not 0xD800 <= p < 0xE000 for p in points):
        return ()
    return tuple(p for p in points if p != SELECTOR)


def describe(points: tuple[int, ...]) -> Emoji:
    """The attributes of a sequence of code points, at least one.

    >>> describe((0x1F469, 0x1F3FF, 0x200D, 0x1F692)).caption
    'woman firefighter with dark skin'
    """
    plain = tuple(p for p in points if p != SELECTOR and not _is_tone(p))
    tones = {p - FIRST_TONE + 1 for p in points if _is_tone(p)} if plain else set()
    plain = plain or points  # a patch of a tone itself
    parts = _split(plain)
    tone = 0 if not tones else tones.pop() if len(tones) == 1 else TONES.index("mixed")
    category = _category(plain)
    gender = _gender(parts, plain) if CATEGORIES[category] == "people" else 0
    noun = _noun(parts, plain, GENDERS[gender])
    if tone:
        noun += f" {'and' if ' with ' in noun else 'with'} {TONES[tone]} skin"
    return Emoji(noun, "-".join(f"{p:x}" for p in _base(parts)), tone, gender, category)


def is_portrait(points: tuple[int, ...]) -> bool:
    """Whether it is a person of a job or a look, in any tone of skin.

    >>> is_portrait((0x1F469, 0x1F3FF, 0x200D, 0x1F692)), is_portrait((0x1F469, 0x1F3FF))
    (True, False)
    """
    return _in_role(_split(tuple(p for p in points if p != SELECTOR and not _is_tone(p)) or points))


def _is_tone(point: int) -> bool:
    return FIRST_TONE <= point < FIRST_TONE + 5


def _is_letter(point: int) -> bool:
    """One of the letters that spell a flag's country."""
    return FIRST_LETTER <= point < FIRST_LETTER + 26


def _split(points: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The parts between joiners."""
    parts: list[tuple[int, ...]] = [()]
    for point in points:
        if point == JOINER:
            parts.append(())
        else:
            parts[-1] += (point,)
    return [part for part in parts if part] or [points]


def _signed(parts: list[tuple[int, ...]]) -> str:
    """The gender that a sign behind the first part gives; "" where there is none."""
    last = parts[-1][0] if len(parts) == 2 else 0
    return {WOMAN_SIGN: "woman", MAN_SIGN: "man"}.get(last, "")


def _in_role(parts: list[tuple[int, ...]]) -> bool:
    return len(parts) == 2 and parts[0][0] in PERSONS and parts[1][0] in ROLES


def _base(parts: list[tuple[int, ...]]) -> tuple[int, ...]:
    if _signed(parts):
        parts = parts[:1]
    if _in_role(parts) or parts in [[(p,)] for p in PERSONS]:
        parts = [(PERSONS[parts[0][0]][0],), *parts[1:]]
    return tuple(p for i, part in enumerate(parts) for p in ((JOINER, *part) if i else part))


def _gender(parts: list[tuple[int, ...]], points: tuple[int, ...]) -> int:
    if sign := _signed(parts):
        return GENDERS.index(sign)
    found = {PERSONS[p][1] for p in points if p in PERSONS} - {""}
    if len(points) == 1 and points[0] not in NEUTRAL:
        words = set(_name(points[0]).split())
        found |= {"woman"} if words & FEMALE_WORDS else set()
        found |= {"man"} if words & MALE_WORDS else set()
    return 0 if not found else GENDERS.index(found.pop() if len(found) == 1 else "both")


def _category(points: tuple[int, ...]) -> int:
    if _is_letter(points[0]):
        return CATEGORIES.index("flag" if points[1:] else "symbol")
    if KEYCAP in points:
        return CATEGORIES.index("symbol")
    return _GROUPS[bisect.bisect_right(_GROUPS, points[0], key=lambda group: group[0]) - 1][1]


def _name(point: int) -> str:
    name = unicodedata.name(chr(point), "").lower() or NEWER.get(point, f"u+{point:x}")
    return name.removeprefix("emoji component ")


def _noun(parts: list[tuple[int, ...]], points: tuple[int, ...], gender: str) -> str:
    if _is_letter(points[0]) and points[1:]:
        return "flag of " + "".join(chr(p - FIRST_LETTER + ord("a")) for p in points if _is_letter(p))
    if any(FIRST_TAG <= p <= LAST_TAG for p in points):
        return "flag of " + "".join(chr(p - 0xE0000) for p in points if FIRST_TAG <= p < LAST_TAG)
    if KEYCAP in points:
        return f"keycap {chr(points[0]) if 32 < points[0] < 127 else _name(points[0])}"
    neutral = NEUTRAL.get(points[0], _name(points[0]))
    if sign := _signed(parts):
        first, _, rest = neutral.partition(" ")
        return f"{sign} {rest}" if first in ("person", "people") else f"{sign} {neutral}"
    if _in_role(parts):
        role, person = ROLES[parts[1][0]], "" if gender == "unstated" else gender
        if role.split()[0] in ("with", "without", "in", "feeding"):
            return f"{person or 'person'} {role}"
        return f"{person} {role}".strip()
    if len(parts) == 1:
        return " ".join([neutral, *map(_name, points[1:])])
    if all(p in PERSONS for p in points if p != JOINER):
        return "family of " + " and ".join(_name(part[0]) for part in parts)
    return " and ".join(_name(p) for part in parts for p in part)
