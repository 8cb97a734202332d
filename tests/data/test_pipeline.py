"""The pipeline: the order of images, flips, bytes and noise, each a function of the seed and the step."""

import jax
import numpy as np

from jgen.config import DataConfig
from jgen.data import ArraySource, Pipeline, open_source
from jgen.data import pipeline as pipeline_module
from jgen.data.pipeline import indices
from jgen.sharding import batch_sharding
from tests.data.sets import MESH, take


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
