"""Image files as people have them are read the same way by training, scores and pairs."""

import gzip
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data import idx, open_source, sources
from jgen.data.fingerprint import fingerprint
from jgen.data.images import read_image
from jgen.data.sources import resolve
from jgen.errors import UserError
from jgen.metrics.image_sets import pair, read_images

RAMP = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369
LEVELS = np.arange(16, dtype=np.uint8).reshape(4, 4) * 17
COLOURS = np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8)


def with_alpha():
    alpha = np.full((4, 4, 1), 255, np.uint8)
    alpha[0] = 0
    return np.concatenate([COLOURS, alpha], -1)


def read(path, **how):
    return np.asarray(read_image(path, **how))


def test_sixteen_bits_become_eight(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read(tmp_path / "x.png")[..., 0], LEVELS)
    np.testing.assert_array_equal(read(tmp_path / "x.png", channels=3), np.repeat(LEVELS[..., None], 3, -1))


def test_files_that_run_a_program_and_floats_are_refused(tmp_path):
    """EPS is a program, which Pillow gives to Ghostscript where that is installed; the white of floats may be any number."""
    Image.fromarray(COLOURS).save(tmp_path / "eps.png", "EPS")
    Image.fromarray(LEVELS / np.float32(255)).save(tmp_path / "float.tiff")
    for name, says in (("eps.png", "cannot identify image file"), ("float.tiff", "its pixels are floats")):
        with pytest.raises(UserError, match=f"{name}: truncated or not an image; .*{says}"):
            read(tmp_path / name)


def test_transparent_pixels_show_the_ground_in_every_mode(tmp_path):
    Image.fromarray(with_alpha()).save(tmp_path / "rgba.png")
    Image.fromarray(with_alpha()).convert("LA").save(tmp_path / "la.png")
    Image.fromarray(with_alpha()).quantize(16).save(tmp_path / "palette.png")
    Image.fromarray(LEVELS).save(tmp_path / "key.png", transparency=0)
    Image.fromarray(RAMP).save(tmp_path / "key16.png", transparency=0)
    Image.fromarray(with_alpha()).save(tmp_path / "x.webp", lossless=True)
    for name in ("rgba.png", "la.png", "palette.png", "x.webp"):
        for ground, value in (("white", 255), ("black", 0), ("#808080", 128)):
            found = read(tmp_path / name, ground=ground)
            assert (found[0] == value).all(), (name, ground)
            np.testing.assert_array_equal(found[1:], read(tmp_path / name, ground="white")[1:])
    for name in ("key.png", "key16.png"):
        assert read(tmp_path / name)[0, 0] == 255
        assert read(tmp_path / name)[0, 1] == 17
    np.testing.assert_array_equal(read(tmp_path / "rgba.png")[1:], COLOURS[1:])
    with pytest.raises(UserError, match="data.ground=purpl: must be a colour"):
        open_source(DataConfig(f"folder:{tmp_path}", ground="purpl"))


def test_a_turned_image_is_the_same_in_training_and_in_scores(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    for i in range(4):
        Image.fromarray(np.roll(COLOURS, i, 0)).save(tmp_path / f"{i}.png", exif=exif)
    trained = open_source(DataConfig(f"folder:{tmp_path}", resolution=4, channels=3))
    scored = read_images(tmp_path).source
    np.testing.assert_array_equal(trained.arrays["image"], scored.arrays["image"])
    np.testing.assert_array_equal(scored.arrays["image"][0], np.rot90(COLOURS, -1))


def test_folders_are_read_as_they_come(tmp_path):
    """Hidden folders and those of archives are no classes; linked ones are; a circle of links ends."""
    root, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for folder in (root / "cats", root / "__MACOSX", root / ".hidden", root / "@eaDir", elsewhere):
        folder.mkdir(parents=True)
        Image.fromarray(COLOURS).save(folder / "0.png")
    (root / "dogs").symlink_to(elsewhere)
    (root / "cats" / "again").symlink_to(root)
    Image.fromarray(COLOURS).save(root / "cats" / ".hidden.png")
    source = open_source(DataConfig(f"folder:{root}", resolution=4, channels=3))
    assert source.classes == ("cats", "dogs")
    assert len(source) == 2


def test_a_damaged_file_whose_name_is_no_utf8_is_named(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"bad\xff\n.png"), "wb") as file:
        file.write(b"no image")
    with pytest.raises(UserError) as error:
        open_source(DataConfig(f"folder:{tmp_path}"))
    assert r"bad\udcff\n.png: truncated or not an image" in str(error.value)
    assert str(error.value).isprintable()


def test_pairs_go_by_name_and_say_what_is_left_out(tmp_path):
    for side, numbers in (("a", (0, 1, 2)), ("b", (1, 2, 3))):
        (tmp_path / side).mkdir()
        for i in numbers:
            Image.fromarray(np.full((4, 4), i, np.uint8)).save(tmp_path / side / f"{i}.png")
    a, b = (read_images(tmp_path / side) for side in "ab")
    found = pair(a, b)
    np.testing.assert_array_equal(found.a.arrays["image"], found.b.arrays["image"])
    assert found.left_out == ("0", "3")
    with pytest.raises(UserError, match="no image of one has the name"):
        pair(a, replace_names(a, ("x", "y", "z")))
    with pytest.raises(UserError, match="two images of the name x"):
        pair(a, replace_names(a, ("x", "x", "z")))


def replace_names(images, names):
    return images._replace(names=names)


def test_the_hash_of_a_large_set_sees_any_changed_file(tmp_path, monkeypatch):
    monkeypatch.setenv("JGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sources, "IN_MEMORY", 0)
    folder = tmp_path / "set"
    folder.mkdir()
    for i in range(600):
        Image.fromarray(np.full((4, 4), i % 256, np.uint8)).save(folder / f"{i:03d}.png")
    config = DataConfig(f"folder:{folder}", resolution=4, channels=1)
    before = fingerprint(open_source(config), 600)
    assert fingerprint(open_source(config), 600) == before
    times = os.stat(folder / "301.png")
    Image.fromarray(np.full((4, 4), 46, np.uint8)).save(folder / "301.png")
    os.utime(folder / "301.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert fingerprint(open_source(config), 600) != before
    shutil.copytree(folder, tmp_path / "copy")
    copied = open_source(replace(config, name=f"folder:{tmp_path / 'copy'}"))
    assert fingerprint(copied, 600) == fingerprint(open_source(config), 600)


def test_classes_belong_to_the_run(tmp_path):
    for name in ("b", "c"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.fromarray(COLOURS).save(tmp_path / name / f"{i}.png")
    config = resolve(DataConfig(f"folder:{tmp_path}", resolution=4))
    assert config.classes == ("b", "c")
    assert open_source(config).classes == ("b", "c")
    (tmp_path / "a").mkdir()
    Image.fromarray(COLOURS).save(tmp_path / "a" / "0.png")
    with pytest.raises(UserError, match="has 3 classes now, the run began with 2"):
        open_source(config)
    shutil.rmtree(tmp_path / "c")
    with pytest.raises(UserError, match="has other classes than the run began with: a for b, b for c"):
        open_source(config)


def write_idx(path, array, extra=b""):
    raw = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes() + extra
    path.write_bytes(raw)
    return path


def test_idx_files_by_their_content(tmp_path):
    array = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    plain = write_idx(tmp_path / "train-images.idx3-ubyte", array)
    np.testing.assert_array_equal(idx.read_idx(plain, 3), array)
    packed = tmp_path / "packed"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(idx.read_idx(packed, 3), array)
    with pytest.raises(UserError, match="has 19 bytes of data, its header says 2 x 3 x 3"):
        idx.read_idx(write_idx(tmp_path / "long", array, b"x"), 3)
    bomb = tmp_path / "bomb"
    bomb.write_bytes(gzip.compress(bytes(2**27)))
    with pytest.raises(UserError, match="out of proportion"):
        idx.read_idx(bomb, 3)
    for name in ("train-labels.idx1-ubyte", "t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"):
        write_idx(tmp_path / name, array if "images" in name else np.array([0, 4 if "train" in name else 1], np.uint8))
    assert open_source(DataConfig(f"idx:{tmp_path}", split="test")).classes == tuple("01234")


def test_images_are_resized_by_the_filter_that_is_asked_for(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    wide = pixels.astype(float)

    def read(resize, side=4):
        config = DataConfig(f"folder:{tmp_path}", resolution=side, channels=1, resize=resize)
        return open_source(config)[0]["image"][..., 0]

    means = wide.reshape(4, 4, 4, 4).mean((1, 3))
    np.testing.assert_allclose(read("box"), means, atol=1.01)  # either axis is rounded
    np.testing.assert_allclose(read("adm"), means, atol=2.01)
    assert len({read(how).tobytes() for how in ("bicubic", "box", "lanczos")}) == 3
    halves = wide.reshape(8, 2, 8, 2).mean((1, 3))
    np.testing.assert_allclose(read("adm", 8), halves, atol=1.01)
    with pytest.raises(UserError, match="data.resize=box: digits is not resized"):
        open_source(DataConfig("digits", resize="box"))
