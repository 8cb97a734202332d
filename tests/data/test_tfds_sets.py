"""Sets prepared for TFDS."""

import pytest

from jgen.config import DataConfig
from jgen.data import Pipeline, open_source
from tests.data.sets import MESH, take, write_idx


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
