"""Folders of images: resizing, labels, decoding as needed, damaged and other files, their census."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from PIL import Image

from jgen.config import DataConfig
from jgen.data import ArraySource, Pipeline, census, open_source
from jgen.data import sources as sources_module
from jgen.metrics.reference import make_reference
from tests.data.sets import MESH, take


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
