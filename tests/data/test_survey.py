"""The facts of a set by its files: sizes, colours and labels, of folders as people have them."""

import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data.survey import survey
from jgen.errors import UserError


def write(path, size, grey=False, same=False):
    """An image of random pixels; same: in colours that are all grey."""
    width, height = size
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 1 if grey or same else 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[..., 0] if grey else np.repeat(pixels, 3, 2) if same else pixels).save(path)


def facts(folder, **options):
    return survey(DataConfig(f"folder:{folder}", **options))


def test_a_folder_of_one_size(tmp_path):
    for i in range(4):
        write(tmp_path / f"{i}.png", (24, 20))
    assert facts(tmp_path) == (4, 20, 1, True, 3, 0, 0)
    assert facts(tmp_path, limit=3).count == 3


def test_mixed_sizes_give_the_side_that_nine_in_ten_reach(tmp_path):
    for i in range(20):
        write(tmp_path / f"{i:02}.png", (50, 9) if i == 7 else (40 + i, 64))
    found = facts(tmp_path)
    assert (found.side, found.sizes) == (40, 20)


def test_grey_images_are_known_even_where_they_are_stored_in_colour(tmp_path):
    write(tmp_path / "a.png", (16, 16), grey=True)
    write(tmp_path / "b.jpg", (16, 16), same=True)
    assert facts(tmp_path).channels == 1
    write(tmp_path / "c.png", (16, 16))
    assert facts(tmp_path).channels == 3


def test_labels_are_subfolders_and_the_smallest_is_counted(tmp_path):
    for i in range(5):
        write(tmp_path / ("cat" if i < 3 else "dog") / f"{i}.png", (16, 16))
    assert facts(tmp_path)[-2:] == (2, 2)
    write(tmp_path / "beside.png", (16, 16))
    assert facts(tmp_path)[-2:] == (0, 0)


def test_bad_files_stop_it_or_are_passed_over(tmp_path):
    write(tmp_path / "a.png", (16, 16))
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(UserError, match="b.png: truncated or not an image"):
        facts(tmp_path)
    assert facts(tmp_path, skip_bad=True).side == 16


@pytest.mark.parametrize("name", ["empty", "none"])
def test_a_folder_without_images_is_refused(name, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no .png|no such folder"):
        facts(tmp_path / name)


def test_other_sets_are_as_they_are_opened():
    found = survey(DataConfig("digits"))
    assert found[:6] == (1500, 8, 1, False, 1, 10)
    assert 140 < found.least_class < 151
