"""Where a command's file can be written is known before its work is done, and nothing that was there is lost by it."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jgen import pictures
from jgen.app import cli, images_out, photos, runs
from jgen.errors import UserError
from jgen.files import check_out

IMAGES = np.zeros((3, 4, 4, 1), np.float32)


@pytest.mark.parametrize("name, says", [
    ("sheet.jpg", "out=.*sheet.jpg: must be a .png or a folder$"), ("folder.png", "is a folder; must be the name of a file"),
    ("file", "is a file; must be a folder"), ("file/sheet.png", "file is no folder"), ("file/a/sheet.png", "file is no folder"),
    ("x" * 230 + ".png", "a name of 234 bytes; must have at most 200"), (f"{'x' * 300}/a.png", "File name too long"),
    ("/proc/sheet.png", "/proc/sheet.png: nothing can be written there"),
])  # fmt: skip
def test_a_file_that_can_not_be_written_is_told_first(tmp_path, name, says):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_text("kept")
    with pytest.raises(UserError, match=says):
        check_out(tmp_path / name, (".png", ""))
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("name", ["sheet.png", "folder", "new/sheet.png", "new/folder", "old.png"])
def test_a_file_that_can_be_written_leaves_nothing_behind(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "old.png").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    check_out(tmp_path / name, (".png", ""))
    assert sorted(tmp_path.rglob("*")) == before


def test_samples_never_stand_among_other_images(tmp_path):
    """Or a score of the folder would be of both."""
    folder = tmp_path / "samples"
    images_out.write_images(IMAGES, folder)
    images_out.write_images(IMAGES, folder)
    (folder / "notes.txt").write_text("no image")
    with pytest.raises(UserError, match=r"samples: holds images that are none of these 2 \(000002.png\); name a new folder"):
        images_out.write_images(IMAGES[:2], folder)
    (folder / "photo.JPG").write_text("")
    with pytest.raises(UserError, match="000002.png and 1 more"):
        runs.sample(tmp_path / "no run", None, 2, 0, 64, str(folder))
    assert len(list(folder.glob("*.png"))) == 3


def test_a_sheet_takes_the_place_of_no_picture_that_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("L", (8, 8)).save("photo.png")
    os.symlink("photo.png", "link.png")
    for out in ("photo.png", "link.png", str(tmp_path / "photo.png")):
        with pytest.raises(UserError, match="is one of the pictures to read; name another file"):
            photos.check_sheet(out, ("missing.png", "photo.png"))
    Path("smile.npy").write_text("a direction")
    photos.check_sheet("smile.png", ("photo.png",))
    with pytest.raises(UserError, match=r"out=smile.png: smile.npy, which would be written beside it, is there already"):
        photos.check_sheet("smile.png", ("photo.png",), array=True)


def test_pictures_of_nothing_are_refused():
    """A cast would make black of NaN, and white of levels."""
    with pytest.raises(UserError, match="images: of uint8; must be floats in"):
        pictures.to_bytes(np.zeros((1, 4, 4, 1), np.uint8))
    broken = IMAGES.copy()
    broken[1, 0, 0] = np.nan
    with pytest.raises(UserError, match="edited: 1 of 3 images are not finite"):
        pictures.check_finite(broken, "edited")
    with pytest.raises(UserError, match="edited: column 2 of 2: 1 of 3 images are not finite"):
        photos.write([IMAGES, broken], "", Path(), "edited")


def test_what_the_system_refuses_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped, cli.one_line_errors():
        (tmp_path / "file" / "new\n").mkdir()
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert r"file/new\n: Not a directory; what was written before is intact" in said
    with pytest.raises(FileNotFoundError), cli.one_line_errors():
        open(tmp_path / "a file that the program needs")
