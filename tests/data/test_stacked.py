"""Stacked digits: every colour is a digit of the class that the label says, and all modes can be found."""

import jax
import numpy as np
import pytest

from jgen.config import DataConfig
from jgen.data import open_source
from jgen.errors import UserError
from jgen.metrics.class_score import modes_found
from jgen.metrics.extract import open_extractor


@pytest.fixture(scope="module")
def train():
    return open_source(DataConfig("stacked_digits"))


def test_colours_are_digits_of_their_classes(train):
    digits = open_source(DataConfig("digits"))
    known = {(image.tobytes(), int(label)) for image, label in zip(digits.arrays["image"], digits.arrays["label"])}
    assert (len(train), train.shape, len(train.classes)) == (50_000, (8, 8, 3), 1000)
    for i in range(200):
        example = train[i]
        for channel, digit in enumerate(train.classes[int(example["label"])]):
            assert (example["image"][..., channel].tobytes(), int(digit)) in known


def test_all_modes_come_alike_and_the_test_set_is_of_other_digits(train):
    counts = np.bincount(train.arrays["label"], minlength=1000)
    assert counts.min() > 20
    assert len(open_source(DataConfig("stacked_digits", split="test"))) == 10_000
    with pytest.raises(UserError, match="digits has train and test"):
        open_source(DataConfig("stacked_digits", split="val"))


@pytest.mark.slow
def test_the_extractor_names_the_mode_of_each_image(train):
    extractor = open_extractor("", "stacked_digits")
    images = train.arrays["image"][:512].astype(np.float32)
    features, logits = jax.jit(extractor.apply)(extractor.variables, images)
    grey, _ = jax.eval_shape(open_extractor("digits_cnn").apply, extractor.variables, images[..., :1])
    assert features.shape == (512, 3 * grey.shape[1])
    assert (np.argmax(logits, 1) == train.arrays["label"][:512]).mean() > 0.9
    np.testing.assert_allclose(np.exp(np.asarray(logits, np.float64)).sum(1), 1, rtol=1e-4)
    with pytest.raises(UserError, match="takes images of 3 channels, these have 1"):
        extractor.apply(extractor.variables, images[..., :1])


def test_modes_are_counted_and_their_shares_compared():
    logits = np.eye(4)[[0, 0, 1, 1]]
    assert modes_found(logits) == (2.0, pytest.approx(np.log(2)))
    assert modes_found(np.eye(4)) == (4.0, pytest.approx(0))
