"""A set by its name: what its settings are filled in with, and what bad ones get."""

from dataclasses import replace

import pytest

from jgen.config import DataConfig
from jgen.data import Pipeline, open_source, resolve
from tests.data.sets import MESH


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


def test_resolve_fills_in_shape_and_classes_once():
    config = resolve(DataConfig("digits"))
    assert (config.shape, config.num_classes) == ((8, 8, 1), 10)
    assert resolve(replace(config, name="gone")) == replace(config, name="gone")
