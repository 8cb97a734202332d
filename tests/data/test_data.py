"""Sources, the pipeline's order, and what bad input gets."""

import gzip
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data import ArraySource, Pipeline, census, open_source, resolve
from jgen.data import pipeline as pipeline_module
from jgen.data import sources as sources_module
from jgen.data.glyphs import CHARACTERS, COLOURS, FONTS, GREYS, Glyphs, colours_seen, decode_caption, measured
from jgen.data.idx import fashion_mnist_folder
from jgen.data.pipeline import indices
from jgen.metrics.scores import make_reference
from jgen.sharding import batch_sharding, make_mesh

MESH = make_mesh()


def take(pipeline, count, start=0, scan=0):
    batches = pipeline.batches(start, scan)
    return [jax.device_get(next(batches)) for _ in range(count)]


def numbered(count):
    """A set whose image i is all i."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 1))
    return ArraySource({"image": images, "label": np.arange(count, dtype=np.int32)}, tuple("x" * count))


def test_digits():
    source, test = open_source(DataConfig("digits")), open_source(DataConfig("digits", split="test"))
    assert (len(source), len(test), source.shape, len(source.classes)) == (1500, 297, (8, 8, 1), 10)
    assert source.arrays["image"].dtype == np.uint8
    assert source.arrays["image"].max() == 255


def test_batches_are_float32_in_range_with_int32_labels():
    config = DataConfig("digits", batch_size=16)
    (batch,) = take(Pipeline(open_source(config), config, 0, MESH), 1)
    assert batch["image"].shape == (16, 8, 8, 1)
    assert batch["image"].dtype == np.float32
    assert batch["label"].dtype == np.int32
    assert batch["image"].min() == -1
    assert batch["image"].max() == 1


def test_a_batch_is_a_function_of_seed_and_step():
    config = DataConfig("digits", batch_size=16, flip=True, dequantize=True)
    source = open_source(config)
    a, b = take(Pipeline(source, config, 3, MESH), 5), take(Pipeline(source, config, 3, MESH), 3, start=2)
    for x, y in zip(a[2:], b):
        jax.tree.map(np.testing.assert_array_equal, x, y)
    (other,) = take(Pipeline(source, config, 4, MESH), 1)
    assert not np.array_equal(a[0]["label"], other["label"])
    stacked = take(Pipeline(source, config, 3, MESH), 1, scan=4)[0]
    assert stacked["image"].shape == (4, 16, 8, 8, 1)
    np.testing.assert_array_equal(stacked["label"], np.stack([x["label"] for x in a[:4]]))


def test_every_epoch_shows_every_image_once_in_another_order():
    source = numbered(10)
    seen = np.concatenate([indices(source, 0, step, 4) for step in range(5)])
    assert sorted(seen[:10]) == sorted(seen[10:]) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_flips_mirror_half_of_the_images():
    images = np.zeros((64, 4, 4, 1), np.uint8)
    images[:, :, 0] = 255
    source, config = ArraySource({"image": images}), DataConfig("x", batch_size=64, flip=True)
    (batch,) = take(Pipeline(source, config, 0, MESH), 1)
    mirrored = batch["image"][:, 0, -1, 0] == 1
    assert 16 < mirrored.sum() < 48
    assert np.all(batch["image"][~mirrored, 0, 0, 0] == 1)


def test_bytes_become_the_same_pixels_on_the_host_and_on_the_devices():
    source, config = numbered(256), DataConfig("x", batch_size=256)
    host = next(Pipeline(source, config, 0, MESH).batches())["image"]
    finish = pipeline_module._finisher(False, False, batch_sharding(MESH))
    devices = finish({"image": jax.numpy.asarray(source.arrays["image"])}, jax.random.key(0))["image"]
    order = indices(source, 0, 0, 256)
    np.testing.assert_allclose(host, np.asarray(devices)[order], rtol=0, atol=1e-7)  # but for a rounding


def test_dequantisation_fills_one_grey_level():
    source, config = numbered(256), DataConfig("x", batch_size=256, dequantize=True)
    (batch,) = take(Pipeline(source, config, 0, MESH), 1)
    levels = (batch["image"] + 1) * 128 - batch["label"][:, None, None, None]
    assert levels.min() >= -1e-4
    assert levels.max() <= 1 + 1e-4
    assert abs(levels.mean() - 0.5) < 0.05


def test_glyphs_are_a_function_of_seed_and_index_with_exact_factors():
    a, b, other = Glyphs(32, seed=1), Glyphs(32, seed=1), Glyphs(32, seed=2)
    jax.tree.map(np.testing.assert_array_equal, a[7], b[7])
    assert not np.array_equal(a[7]["image"], other[7]["image"])
    assert not np.array_equal(a[7]["image"], Glyphs(32, seed=1, split="test")[7]["image"])
    names = tuple(COLOURS)
    for i in range(40):
        example, f = a[i], a.factors(i)
        corner = tuple(example["image"][0, 0])
        assert corner == COLOURS[names[f.background]]  # nothing reaches the corner
        middle = np.abs(example["image"].astype(int) - COLOURS[names[f.foreground]]).sum(-1)
        assert middle.min() < 200, "the foreground colour shows"
        caption = decode_caption(example["caption"])
        assert caption == a.caption(i)
        words = caption.split()
        assert words[-1] == names[f.background]
        assert CHARACTERS[example["label"]] == words[-3]
        assert ("rotated" in words) == (abs(f.rotation) > 15)
        assert names[f.foreground] in words


@pytest.mark.parametrize("size,channels", [(8, 1), (16, 3), (64, 1), (256, 3)])
def test_glyphs_come_at_any_resolution(size, channels):
    source = open_source(DataConfig("glyphs", resolution=size, channels=channels))
    assert source[0]["image"].shape == (size, size, channels)
    assert source.endless
    assert len(FONTS) >= 10


def test_the_position_factor_is_where_the_glyph_is():
    """The mass of a round character follows its position, in image widths."""
    from jgen.data.glyphs import Factors, draw

    for dx, dy in [(-0.1, 0.0), (0.1, 0.05)]:
        f = Factors(CHARACTERS.index("O"), 0, 1, 0, (dx, dy), 0.5, 0.0)
        ink = draw(f, (64, 64, 1), ((0,), (255,)))[..., 0].astype(float)
        rows, columns = np.mgrid[:64, :64] + 0.5
        assert abs((ink * columns).sum() / ink.sum() / 64 - 0.5 - dx) < 0.02
        assert abs((ink * rows).sum() / ink.sum() / 64 - 0.5 - dy) < 0.06  # the anchor is the line's middle


@pytest.fixture
def folder(tmp_path):
    """Twelve images of odd sizes in two classes; image i of a class is grey level 10 i."""
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for i in range(6):
            suffix = (".png", ".jpg", ".webp")[i % 3]
            Image.fromarray(np.full((20 + i, 30, 3), 10 * i, np.uint8)).save(tmp_path / name / f"{i}{suffix}")
    return tmp_path


def test_folder_resizes_crops_and_labels(folder):
    source = open_source(DataConfig(f"folder:{folder}", resolution=16))
    assert isinstance(source, ArraySource)
    assert (len(source), source.shape, source.classes) == (12, (16, 16, 3), ("cats", "dogs"))
    assert np.bincount(source.arrays["label"]).tolist() == [6, 6]
    assert abs(int(source[5]["image"].mean()) - 50) <= 2
    assert open_source(DataConfig(f"folder:{folder}", resolution=16, channels=1)).shape == (16, 16, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_large_folder_is_decoded_as_needed_and_gives_the_same_batches(folder, monkeypatch, workers):
    config = DataConfig(f"folder:{folder}", batch_size=4, resolution=16, workers=workers)
    small = take(Pipeline(open_source(config), config, 0, MESH), 5, start=1)
    monkeypatch.setattr(sources_module, "IN_MEMORY", 0)
    source = open_source(config)
    assert not isinstance(source, ArraySource)
    large = take(Pipeline(source, config, 0, MESH), 5, start=1)
    for a, b in zip(small, large):
        jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_million_images_cost_only_their_names(tmp_path, monkeypatch):
    """Opening and reading a batch decodes that batch alone, however many files there are."""
    import os

    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "0.png")
    for i in range(1, 3000):
        os.link(tmp_path / "0.png", tmp_path / f"{i}.png")
    from jgen.data import folder as folder_module

    decoded, read = [], folder_module.read_image
    monkeypatch.setattr(folder_module, "read_image", lambda *a: decoded.append(1) or read(*a))
    monkeypatch.setattr(sources_module, "IN_MEMORY", 2999 * 16 * 16 * 3)
    config = DataConfig(f"folder:{tmp_path}", batch_size=8, resolution=16)
    source = open_source(config)
    assert not decoded
    take(Pipeline(source, config, 0, MESH), 1)
    assert len(decoded) < 500


def test_bad_files_are_named_or_skipped_and_counted(folder, monkeypatch, capsys):
    path = folder / "cats" / "9.png"
    path.write_bytes((folder / "cats" / "0.png").read_bytes()[:40])
    config = DataConfig(f"folder:{folder}", batch_size=4, resolution=16)
    with pytest.raises(ValueError, match=r"9.png: truncated or not an image; --data.skip-bad"):
        open_source(config)
    assert len(open_source(replace(config, skip_bad=True))) == 12
    out = capsys.readouterr().out
    assert "skipped 1 of 13" in out
    assert "passes over it" not in out
    monkeypatch.setattr(sources_module, "IN_MEMORY", 0)
    with pytest.raises(ValueError, match=r"9.png: truncated"):
        take(Pipeline(open_source(config), config, 0, MESH), 4)
    for limit in (0, 12):
        skipping = replace(config, skip_bad=True, limit=limit)
        pipeline = Pipeline(open_source(skipping), skipping, 0, MESH)
        assert len(take(pipeline, 4)) == 4
        assert pipeline.skipped >= 1
    reference = make_reference(open_source(replace(config, skip_bad=True)), config)
    assert [len(images) for images in reference.batches(5)] == [5, 5, 5]
    with pytest.raises(ValueError, match=r"9.png: truncated"):
        list(make_reference(open_source(config), config).batches(5))


def test_other_files_in_a_folder_are_passed_over_and_counted(folder, capsys):
    for name in ("cats/notes.txt", "cats/Thumbs.db", "more.txt", "cats/.DS_Store"):
        (folder / name).write_text("x")
    assert len(open_source(DataConfig(f"folder:{folder}"))) == 12
    assert capsys.readouterr().err == f"{folder}: passed over 3 files that are not PNG, JPEG or WebP (2 .txt, 1 .db)\n"


def test_the_census_of_a_folder_tells_a_changed_one(folder, tmp_path):
    config = DataConfig(f"folder:{folder}")
    before = census(config)
    assert before.startswith("12 files of hash ")
    copy = shutil.copytree(folder, tmp_path / "moved")
    assert census(replace(config, name=f"folder:{copy}")) == before
    next(copy.rglob("*.png")).unlink()
    assert census(replace(config, name=f"folder:{copy}")).startswith("11 files")
    assert census(DataConfig("digits")) == ""


def write_idx(folder, count=12, labels=None):
    images = np.arange(count * 9, dtype=np.uint8).reshape(count, 3, 3)
    labels = np.arange(count, dtype=np.uint8) % 10 if labels is None else labels
    for stem, array in (("images-idx3", images), ("labels-idx1", labels)):
        head = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
        for prefix in ("train", "t10k"):
            with gzip.open(folder / f"{prefix}-{stem}-ubyte.gz", "wb") as file:
                file.write(head + array.tobytes())
    return images


def test_idx_files(tmp_path):
    images = write_idx(tmp_path)
    source = open_source(DataConfig(f"idx:{tmp_path}"))
    np.testing.assert_array_equal(source.arrays["image"][..., 0], images)
    assert len(source.classes) == 10
    named = open_source(DataConfig("fashion_mnist", root=str(tmp_path)))
    assert named.classes[9] == "Ankle boot"


def test_bad_idx_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no train-images-idx3-ubyte"):
        open_source(DataConfig(f"idx:{tmp_path}"))
    write_idx(tmp_path, labels=np.full(12, 10, np.uint8))
    with pytest.raises(ValueError, match="fashion_mnist: label 10 is out of range, there are 10 classes"):
        open_source(DataConfig("fashion_mnist", root=str(tmp_path)))
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="train-images-idx3-ubyte.gz: truncated"):
        open_source(DataConfig(f"idx:{tmp_path}"))
    path.write_bytes(gzip.compress(b"hello"))
    with pytest.raises(ValueError, match="not an IDX file"):
        open_source(DataConfig(f"idx:{tmp_path}"))


@pytest.mark.skipif(fashion_mnist_folder() is None, reason="Debian's dataset-fashion-mnist is not installed")
def test_fashion_mnist():
    source = open_source(DataConfig("fashion_mnist"))
    assert (len(source), source.shape) == (60000, (28, 28, 1))
    assert np.bincount(source.arrays["label"]).tolist() == [6000] * 10


def test_prepared_copies_open_in_stock_tfds(folder, tmp_path):
    import tensorflow_datasets as tfds

    from jgen.data.tfds_sets import prepare

    idx = tmp_path / "idx"
    idx.mkdir()
    images = write_idx(idx)
    data_dir = str(tmp_path / "tfds")
    for name in (f"folder:{folder / 'cats'}", f"idx:{idx}"):
        prepare(name, data_dir, 16)
    stock = tfds.data_source("idx", split="train", data_dir=data_dir)
    assert sorted(int(e["image"].sum()) for e in stock) == sorted(images.reshape(12, -1).sum(1).tolist())
    config = DataConfig("idx", root=data_dir, batch_size=4)
    ours = open_source(config)
    assert (len(ours), ours.shape, len(ours.classes)) == (12, (3, 3, 1), 10)
    assert take(Pipeline(ours, config, 0, MESH), 1)[0]["image"].shape == (4, 3, 3, 1)
    assert open_source(DataConfig("cats", root=data_dir)).shape == (16, 16, 3)
    for name in (f"folder:{folder / 'cats'}", f"idx:{idx}"):
        with pytest.raises(ValueError, match="was prepared before, maybe of other images; remove it first, or name another"):
            prepare(name, data_dir, 32)
    assert open_source(DataConfig("cats", root=data_dir)).shape == (16, 16, 3)


def test_preparing_fashion_mnist_keeps_its_stock_name_and_classes(tmp_path):
    import tensorflow_datasets as tfds

    from jgen.data.tfds_sets import prepare

    write_idx(tmp_path)
    written = prepare("fashion_mnist", str(tmp_path))
    assert written.parent.name == "fashion_mnist"
    stock = tfds.builder_from_directory(str(written))
    assert stock.info.features["label"].names[0] == "T-shirt/top"
    assert len(stock.as_data_source(split="train")) == 12


@pytest.mark.parametrize("config,match", [
    (DataConfig("fashon_mnist"), r"no such set \(did you mean fashion_mnist"),
    (DataConfig("cifar10"), r"not prepared in .*; run: python -m jgen.data prepare cifar10"),
    (DataConfig("folder:nowhere"), "no such folder"),
    (DataConfig("folder:~/nowhere"), r"data.name=folder:~/nowhere: no such folder; a shell does not expand ~ there"),
    (DataConfig(f"folder:{__file__}"), "a file, not a folder"),
    (DataConfig("folder:"), "data.name=folder:: names no folder; write folder:FOLDER"),
    (DataConfig("../photos"), r"data.name=\.\./photos: no such set"),
    (DataConfig("/"), "data.name=/: no such set; a folder of images is named folder:/"),
    (DataConfig(""), "data.name=: no such set"),
    (DataConfig("digits", channels=3), "data.channels=3: digits has 1"),
    (DataConfig("digits", resolution=16), "data.resolution=16: digits is 8x8"),
    (DataConfig("digits", split="val"), "data.split=val: digits has train and test"),
    (DataConfig("digits", limit=-1), "data.limit=-1"),
    (DataConfig("glyphs", resolution=512), "data.resolution=512: glyphs are drawn from 8 to 256"),
])  # fmt: skip
def test_bad_settings_are_told_in_one_line(config, match, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    with pytest.raises(ValueError, match=match) as error:
        open_source(config)
    assert "\n" not in str(error.value)


def test_an_empty_folder_and_too_few_images_are_told(tmp_path):
    with pytest.raises(ValueError, match="holds no .png"):
        open_source(DataConfig(f"folder:{tmp_path}"))
    (tmp_path / "a.HEIC").touch()
    (tmp_path / "b.heic").touch()
    with pytest.raises(ValueError, match="holds no .png, .jpg, .jpeg, .webp files, of others 2 .heic"):
        open_source(DataConfig(f"folder:{tmp_path}"))
    config = DataConfig("digits", batch_size=2000)
    with pytest.raises(ValueError, match="data.batch_size=2000: digits has only 1500 images"):
        Pipeline(open_source(config), config, 0, MESH)


def test_preparing_without_a_network_says_so_at_once(tmp_path, monkeypatch):
    import socket

    from jgen.data.tfds_sets import prepare

    def refuse(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(ValueError, match="cifar10: its files can't be downloaded from .* copy the folder to"):
        prepare("cifar10", str(tmp_path))
    with pytest.raises(ValueError, match="no such set"):
        prepare("no_such_set_at_all", str(tmp_path))


def test_resolve_fills_in_shape_and_classes_once():
    config = resolve(DataConfig("digits"))
    assert (config.shape, config.num_classes) == ((8, 8, 1), 10)
    assert resolve(replace(config, name="gone")) == replace(config, name="gone")


def test_the_command_lists_and_shows(tmp_path, capsys):
    from jgen.app.data_command import main

    main(["list", "--root", str(tmp_path)])
    assert "glyphs" in capsys.readouterr().out
    main(["show", "glyphs", "--resolution", "16", "--out", str(tmp_path / "g.png"), "--num", "9"])
    assert "62 classes" in capsys.readouterr().out
    assert Image.open(tmp_path / "g.png").width > 300
    with pytest.raises(SystemExit) as stop:
        main(["show", "nothing_of_the_kind"])
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith("error: data.name=nothing_of_the_kind: no such set")


def test_a_sheet_is_spread_over_the_set_and_small(tmp_path, monkeypatch):
    from jgen.app.data_command import main

    monkeypatch.setattr(sources_module, "IN_MEMORY", 0)
    for i in range(4):
        Image.new("L", (8, 8), 60 * i).save(tmp_path / f"{i}.png")
    (tmp_path / "0.png").write_bytes(b"no image")
    sheet = tmp_path / "sheet" / "s.png"
    words = ["show", f"folder:{tmp_path}", "--num", "2", "--out", str(sheet), "--skip-bad", "--channels", "1"]
    main([*words, "--resolution", "512"])
    assert Image.open(sheet).size == (515, 258)
    values = np.asarray(Image.open(sheet))
    assert values[5, 5] == 60
    assert values[5, -5] == 180


def test_options_without_effect_on_a_set_are_refused(folder, tmp_path, monkeypatch, capsys):
    from jgen.app.data_command import main

    monkeypatch.chdir(tmp_path)
    for words, says in (
        (["show", f"folder:{folder}", "--split", "test"], "data.split=test: a folder has no splits"),
        (["prepare", "fashion_mnist", "--resolution", "32"], "resolution=32: has no effect on fashion_mnist"),
        (["show", "digits", "--out", "sheet.jpg"], "out=sheet.jpg: must be a .png"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2
        assert says in capsys.readouterr().err
    with pytest.raises(ValueError, match="data.split=test: a folder has no splits"):
        resolve(DataConfig(f"folder:{folder}", split="test"))
    assert not list(tmp_path.glob("*.png"))


def test_factors_of_glyphs_can_be_read_from_their_pixels():
    source = Glyphs(16, 1)
    drawn = [source.factors(i) for i in range(300)]
    levels = np.array([v[0] for v in GREYS.values()]) / 127.5 - 1
    front, back = (levels[[getattr(f, k) for f in drawn]] for k in ("foreground", "background"))
    seen = measured(np.stack([source[i]["image"] for i in range(300)]) / 127.5 - 1)
    np.testing.assert_allclose(seen["ground"], back, atol=1e-6)
    np.testing.assert_array_equal(np.sign(seen["contrast"]), np.sign(front - back))
    true = {"right": [f.position[0] for f in drawn], "down": [f.position[1] for f in drawn], "size": [f.scale for f in drawn]}
    # A character's pixels are not spread evenly about its centre, nor do all fill their font's size.
    for (name, values), least in zip(true.items(), (0.92, 0.8, 0.6)):
        assert np.corrcoef(seen[name], values)[0, 1] > least
    blank = measured(np.zeros((1, 16, 16, 1)))
    assert all(v == 0 for v in blank.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_of_glyphs_can_be_read_from_their_pixels(channels):
    source = Glyphs(32, channels)
    drawn = [source.factors(i) for i in range(100)]
    front, back = colours_seen(np.stack([source[i]["image"] for i in range(100)]) / 127.5 - 1)
    np.testing.assert_array_equal(front, [f.foreground for f in drawn])
    np.testing.assert_array_equal(back, [f.background for f in drawn])
