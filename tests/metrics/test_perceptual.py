"""Perceptual distances as sums of squared differences of features."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.metrics.extract import open_extractor
from jgen.metrics.lpips import open_lpips
from jgen.metrics.perceptual import of_extractor, open_perceptual
from jgen.models.cnn import CNN
from tests import tiny
from tests.metrics.toy import linear_extractor

RANDOM = np.random.default_rng(0)


def distance(found, a, b):
    see = jax.jit(found.see)
    return np.sum((np.asarray(see(a)) - np.asarray(see(b))) ** 2, -1)


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
def test_lpips_of_its_files_is_lpips(channels, tmp_path):
    trunk, heads = tiny.lpips_files(tmp_path)
    a, b = (jnp.asarray(RANDOM.uniform(-1, 1, (2, 32, 32, channels)), jnp.float32) for _ in range(2))
    lpips, weights = open_lpips(trunk, heads)
    found = open_perceptual(f"lpips:{trunk}:{heads}")
    np.testing.assert_allclose(distance(found, a, b), lpips(weights, a, b), rtol=1e-4)


def test_jgens_own_looks_at_places_and_is_the_mean_over_them():
    """The distance by maps of the blocks, against a loop over the places of the network's own intermediate maps."""
    found, extractor = open_perceptual("", "digits"), open_extractor("", "digits")
    a = jnp.asarray(RANDOM.uniform(-1, 1, (1, 8, 8, 1)), jnp.float32)
    b = jnp.asarray(RANDOM.uniform(-1, 1, (1, 8, 8, 1)), jnp.float32)
    maps = [extractor.taps(extractor.variables, (x + 1) * 127.5) for x in (a, b)]
    assert [m.shape[1:3] for m in maps[0]] == sorted((m.shape[1:3] for m in maps[0]), reverse=True)
    expected = 0.0
    for one, other in zip(*maps):
        units = [np.asarray(m) / (np.linalg.norm(m, axis=-1, keepdims=True) + 1e-10) for m in (one, other)]
        expected += np.mean(np.sum((units[0] - units[1]) ** 2, -1))
    np.testing.assert_allclose(distance(found, a, b), [expected], rtol=1e-4)
    assert distance(found, a, a) == 0
    turned = jnp.flip(a, (1, 2))
    assert distance(found, a, turned) > 0.1  # an average over the picture hardly sees it


def test_the_maps_are_those_that_the_classes_come_from():
    net = CNN(4, (8, 16), 1)
    x = jnp.asarray(RANDOM.uniform(-1, 1, (2, 8, 8, 1)), jnp.float32)
    variables = net.init(jax.random.key(0), x)
    _, seen = net.apply(variables, x, capture_intermediates=True)
    assert seen["intermediates"]["block_1"]["__call__"][0].shape == (2, 4, 4, 16)


def test_extractors_without_maps_give_pooled_features_of_length_1():
    found = of_extractor(linear_extractor())
    images = jnp.asarray(RANDOM.uniform(-1, 1, (3, 8, 8, 1)), jnp.float32)
    np.testing.assert_allclose(np.linalg.norm(found.see(images), axis=-1), 1, rtol=1e-5)


@pytest.mark.parametrize("name, says", [
    ("lpips:", "must be lpips:TRUNK:HEADS"), ("lpips:trunk.pth", "must be lpips:TRUNK:HEADS"), ("nothing", "extractor=nothing"),
    ("lpips:none.pth:none.pth", "none.pth: no such file"),
])  # fmt: skip
def test_names_of_nothing_are_refused(name, says):
    with pytest.raises(UserError, match=says):
        open_perceptual(name)
