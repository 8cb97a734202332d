"""Emoji: what names say, splits, readers of untrusted files; the real set and the font where they are."""

import gzip
import io
import itertools
import shutil
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data import emoji, open_source
from jgen.data.emoji_names import CATEGORIES, GENDERS, KINDS, TONES, describe, points_of
from jgen.data.glyphs import decode_caption
from jgen.errors import UserError

STEMS = [f"{who}{tone}" for who in ("1f44b", "1f590") for tone in ("", *(f"-1f3f{t}" for t in "bcdef"))]
STEMS += [f"{who}{tone}-200d-1f692" for who in ("1f468", "1f469", "1f9d1") for tone in ("", "-1f3fb", "-1f3ff")]
STEMS += ["1f600", "1f431", "2764-fe0f", "1f1e9-1f1ea", *(f"1f4{i:02x}" for i in range(0, 64, 2))]


def png(colour=(255, 0, 0), size=(20, 16), mode="RGBA"):
    """A picture whose left half is transparent."""
    image = Image.new(mode, size, (*colour, 255)[: len(mode)])
    if mode == "RGBA":
        image.paste((0, 0, 0, 0), (0, 0, size[0] // 2, size[1]))
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def write_tar(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(data, bytes):
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
            else:
                member.type, member.linkname = tarfile.SYMTYPE, str(data)
                archive.addfile(member)
    return path


@pytest.fixture
def tarball(tmp_path):
    files = {f"package/assets/{stem}.png": png((i % 256, 40, 40)) for i, stem in enumerate(STEMS)}
    return write_tar(tmp_path / "set.tgz", {"package/package.json": b"{}", **files})


def opened(path, split="train", **changes):
    return open_source(DataConfig("emoji", root=str(path), split=split, **changes))


@pytest.mark.parametrize("stem,caption,tone,gender,category", [
    ("1f44b-1f3fe", "waving hand sign with medium-dark skin", "medium-dark", "unstated", "people"),
    ("1f469-1f3ff-200d-1f692", "woman firefighter with dark skin", "dark", "woman", "people"),
    ("1f9d1-200d-1f692", "firefighter", "no tone", "unstated", "people"),
    ("1f468-1f3fc-200d-1f9b0", "man with red hair and medium-light skin", "medium-light", "man", "people"),
    ("1f473-1f3fd-200d-2640-fe0f", "woman with turban and medium skin", "medium", "woman", "people"),
    ("1f473", "person with turban", "no tone", "unstated", "people"),
    ("1f46e-200d-2642-fe0f", "man police officer", "no tone", "man", "people"),
    ("1f478", "princess", "no tone", "woman", "people"),
    ("1f468-200d-1f469-200d-1f466", "family of man and woman and boy", "no tone", "both", "people"),
    ("1f9d1-1f3fb-200d-1f91d-200d-1f9d1-1f3ff", "adult and handshake and adult with mixed skin", "mixed", "unstated", "people"),
    ("1f1e9-1f1ea", "flag of de", "no tone", "unstated", "flag"),
    ("1f3f4-e0067_e0062_e0065_e006e_e0067_e007f", "flag of gbeng", "no tone", "unstated", "flag"),
    ("0030-fe0f-20e3", "keycap 0", "no tone", "unstated", "symbol"),
    ("1f600", "grinning face", "no tone", "unstated", "smiley"),
    ("1f431", "cat face", "no tone", "unstated", "animal"),
    ("1face", "moose", "no tone", "unstated", "animal"),
    ("1f355", "slice of pizza", "no tone", "unstated", "food"),
    ("1f697", "automobile", "no tone", "unstated", "travel"),
    ("26bd", "soccer ball", "no tone", "unstated", "activity"),
    ("1f50b", "battery", "no tone", "unstated", "object"),
])  # fmt: skip
def test_code_points_tell_caption_and_attributes(stem, caption, tone, gender, category):
    found = describe(points_of(stem))
    assert found.caption == caption
    assert (TONES[found.tone], GENDERS[found.gender], CATEGORIES[found.category]) == (tone, gender, category)
    assert KINDS[found.kind] == (f"people {gender} {tone}" if category == "people" else category)


def test_variants_share_a_base_and_other_things_do_not():
    fire = [f"{who}{tone}-200d-1f692" for who in ("1f468", "1f469", "1f9d1") for tone in ("", "-1f3fb")]
    assert {describe(points_of(s)).base for s in fire} == {"1f9d1-200d-1f692"}
    police = ("1f46e", "1f46e-1f3ff", "1f46e-200d-2642-fe0f", "1f46e-1f3fb-200d-2640")
    assert {describe(points_of(s)).base for s in police} == {"1f46e"}
    assert describe(points_of("1f468")).base == describe(points_of("1f469-1f3fb")).base == "1f9d1"
    assert describe(points_of("1f46a")).base != describe(points_of("1f46b")).base


@pytest.mark.parametrize("stem", ["", "cat", "1f600 copy", "../1f600", "110000", "d800", "1f600-", "-".join(["1f600"] * 17)])
def test_other_names_spell_nothing(stem):
    assert points_of(stem) == ()


def test_tarball_and_folder_give_one_set_whose_splits_share_nothing(tarball, tmp_path):
    with tarfile.open(tarball) as archive:
        archive.extractall(tmp_path / "out", filter="data")
    parts = {}
    for split in emoji.SPLITS:
        a, b = (opened(path, split, resolution=16) for path in (tarball, tmp_path / "out"))
        for key in a[0]:
            np.testing.assert_array_equal(a[np.arange(len(a))][key], b[np.arange(len(b))][key])
        parts[split] = a[np.arange(len(a))]
    captions = {s: [decode_caption(c) for c in part["caption"]] for s, part in parts.items()}
    assert sorted(itertools.chain(*captions.values())) == sorted(describe(points_of(s)).caption for s in STEMS)
    bases = {s: set(part["base"].tolist()) for s, part in parts.items()}
    assert bases["seen"] <= bases["train"]
    assert not bases["test"] & bases["train"]
    assert captions["seen"]
    with pytest.raises(UserError, match="data.split=val: emoji has train, test, seen"):
        opened(tarball, "val")


def test_pictures_are_padded_to_a_square_and_laid_on_the_ground(tarball):
    for ground, colour in (("white", (255, 255, 255)), ("#102030", (16, 32, 48))):
        image = opened(tarball, resolution=20, ground=ground)[0]["image"]
        assert (image[:, :9] == colour).all(), "what is transparent shows the ground"
        assert (image[[0, 1, -2, -1]] == colour).all(), "and so do the bands above and below"
        assert (image[4:-4, 12:, 1] == 40).all()
    assert opened(tarball, resolution=8, channels=1)[0]["image"].shape == (8, 8, 1)
    assert opened(tarball)[0]["image"].shape == (64, 64, 3)
    with pytest.raises(UserError, match="data.ground=blurple"):
        opened(tarball, ground="blurple")


def test_links_large_files_and_damaged_ones_are_no_pictures(tmp_path):
    secret = tmp_path / "1f44b.png"
    secret.write_bytes(png())
    many = {"assets/1f600.png": png(), "assets/1f601.png": secret, "../../1f602.png": png((9, 9, 9))}
    many |= {"assets/1f603.png": bytes(emoji.LARGEST_FILE + 1), "assets/readme.md": b"", "assets/1f604.gif": b"GIF89a"}
    found = dict(emoji._of_tarball(write_tar(tmp_path / "a.tgz", many)))
    assert set(found) == {(0x1F600,), (0x1F602,)}  # which is read, and written nowhere
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "1f600.png").symlink_to(secret)
    with pytest.raises(UserError, match="no images"):
        opened(folder)
    for name, data in {"x": b"no tarball", "y": gzip.compress(b"no tarball"), "z": gzip.compress(bytes(2**30))[:-9]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError, match="truncated or not|holds no images|refused"):
            opened(tmp_path / name)
    tarball = write_tar(tmp_path / "bad.tgz", {f"{s}.png": b"broken" if s == "1f600" else png() for s in STEMS})
    split = next(s for s in emoji.SPLITS if "grinning face" in _captions(tarball, s))
    with pytest.raises(UserError, match="grinning face: truncated or not an image"):
        opened(tarball, split, resolution=8)
    assert len(opened(tarball, split, skip_bad=True)) > 0


def _captions(tarball, split):
    return [p.emoji.caption for p in emoji.emoji_source("emoji", str(tarball), 8, 3, split, "white", False).pictures]


def test_a_picture_of_many_pixels_in_few_bytes_is_refused():
    with pytest.raises(UserError, match="5000x10; must be at most 2048 pixels"):
        emoji._decoded(png(size=(5000, 10)), (8, 8, 3), "white", "x")


def test_preparing_fetches_by_npm_or_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(
        UserError, match="npm is not installed; run `npm pack @lobehub/fluent-emoji-3d@1.1.0` where npm is"
    ) as e:
        emoji.prepare(str(tmp_path))
    assert "\n" not in str(e.value)
    monkeypatch.setattr(shutil, "which", lambda name: "npm")
    failed = subprocess.CompletedProcess([], 1, "", "npm error network\nmore")
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(UserError, match=r"npm failed \(npm error network\); run"):
        emoji.prepare(str(tmp_path))

    def other(command, cwd, **kwargs):
        write_tar(f"{cwd}/{emoji.TARBALL}", {})
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", other)
    with pytest.raises(UserError, match="npm brought a file of sha256"):
        emoji.prepare(str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_a_set_that_is_not_there_says_how_to_get_it(tmp_path):
    with pytest.raises(UserError, match=r"has no lobehub.* run: python -m jgen.data prepare emoji"):
        opened(tmp_path)
    with pytest.raises(UserError, match="apt-get install fonts-noto-color-emoji"):
        open_source(DataConfig("emoji:noto", root=str(tmp_path / "none.ttf")))
    with pytest.raises(UserError, match="must be emoji, emoji:portraits or emoji:noto"):
        open_source(DataConfig("emoji:apple"))
    (tmp_path / "font.ttf").write_bytes(b"no font")
    with pytest.raises(UserError, match="not a font with bitmaps"):
        open_source(DataConfig("emoji:noto", root=str(tmp_path / "font.ttf")))


@pytest.mark.slow
@pytest.mark.parametrize("name,least", [("emoji", 3375), ("emoji:portraits", 438), ("emoji:noto", 3000)])
def test_the_real_set(name, least):

    if not emoji.ready(name):
        pytest.skip(f"no {name} on this machine")
    parts = [emoji.emoji_source(name, "", 32, 3, split, "white", False) for split in emoji.SPLITS]
    assert sum(map(len, parts)) >= least
    assert max(len(p.emoji.caption) for part in parts for p in part.pictures) <= emoji.CAPTION_BYTES
    assert all(p.emoji.caption.isascii() for part in parts for p in part.pictures)
    image = parts[0][5]["image"]
    assert image.shape == (32, 32, 3)
    assert image.std() > 10
