"""IDX files, those of Fashion-MNIST among them."""

import gzip

import numpy as np
import pytest

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.data.idx import fashion_mnist_folder
from tests.data.sets import write_idx


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
